"""Faces by description: a query read into labels, faces scored by the predictor's probabilities, alone or with FLIP."""

"""Using a trained FLIP: encoding, search, sample retrievals."""

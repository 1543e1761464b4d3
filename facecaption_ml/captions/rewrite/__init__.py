"""Rewriting captions with a chat model: best of several seeds, judged, answers kept."""

"""Guided decoding: which words may follow, so that a small model stays faithful."""

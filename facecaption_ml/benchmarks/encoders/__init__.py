"""Frozen models under test, and their cached features."""

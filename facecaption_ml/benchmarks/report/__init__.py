"""Measured beside published numbers: tables, page, regression check."""

"""Processes of this machine: which is which, which another has started, and how they end."""

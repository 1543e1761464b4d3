"""The three benchmarks (paper §5.2–5.4) and the probes that they train."""

"""The paper's benchmarks (§5.2–5.4): retrieval, attributes, sketch-less retrieval, and the tables beside the published ones."""

from facecaption_ml.ranking import rank_percentile, recall_at_k, reciprocal_rank

__all__ = ["rank_percentile", "recall_at_k", "reciprocal_rank"]

"""Template captions: grammar, sampler, one caption for a face."""

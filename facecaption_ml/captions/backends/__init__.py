"""Chat models that rewrite captions: local, behind an endpoint, vLLM offline."""

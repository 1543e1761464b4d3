"""Whether a text says what the labels say: lexicon, parser, check."""

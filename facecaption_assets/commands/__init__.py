"""``facecaption …``, a file a command."""

"""What a data set of a given size takes: ``facecaption plan``."""

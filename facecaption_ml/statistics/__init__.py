"""The data set's statistics (paper §4): text, picture quality, image-text matching, and Table 1."""

"""The FLIP for photographs that comes with the package: how it is trained on a folder with CelebA's layout, and measured."""

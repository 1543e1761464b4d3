"""Starting FLIP's training processes, and the figures of a training."""

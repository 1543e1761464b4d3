"""Pre-training: objectives, loop, processes, checkpoints that a training resumes from."""

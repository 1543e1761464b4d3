"""Which machine a step gets: cores, memory, GPUs, executor, and what happens when it is lost."""

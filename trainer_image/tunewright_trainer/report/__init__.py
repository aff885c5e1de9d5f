"""What is left of a run for people: the log of every step, TensorBoard files, curves and a page."""

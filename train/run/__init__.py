"""Training one cell: the loop, the step, checkpoints and evaluation."""

"""One file for each architecture: what its paper proposes, and nothing else."""

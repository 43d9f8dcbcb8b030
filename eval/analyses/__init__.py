"""What a run table supports: slopes, comparisons, frontiers, ranks, protocols and claims."""

"""The analyses of a run table: slopes, comparisons, frontiers, ranks, protocols and claims."""

"""What a study costs before it runs: counts, device memory, time and money."""

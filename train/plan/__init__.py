"""The cost of a study before it runs: counts, device memory, time and money."""

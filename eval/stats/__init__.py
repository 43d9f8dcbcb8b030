"""Statistics on arrays: regression, bootstrap, correlation, permutation and decisions."""

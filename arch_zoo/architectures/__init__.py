"""One file for each architecture, with only what its paper changes."""

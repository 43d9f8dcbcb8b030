"""Studies: how they are declared, where they are stored, and the commands that run them."""

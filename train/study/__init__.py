"""Studies: how they are declared, where they live, and the verbs that run them."""

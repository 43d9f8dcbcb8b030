"""The verbs of `python -m eval`."""

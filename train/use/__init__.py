"""What one does with a finished run: load it, generate from it."""

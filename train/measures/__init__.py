"""Measures that take too long for an evaluation: of a finished run, or of a corpus."""

"""Presets: Python functions that return frozen dataclasses."""

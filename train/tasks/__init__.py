"""Downstream tasks: their text-to-text form, their metrics, and the offline suite."""

"""Simulated studies of known truth, and how often the analyses find it."""

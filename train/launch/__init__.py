"""Launchers: each runs the cells of one manifest somewhere, without scheduling machines."""

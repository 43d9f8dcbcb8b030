"""Launchers: each runs the cells of one manifest somewhere; none schedules across machines by itself."""

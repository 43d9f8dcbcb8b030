"""Launchers: each starts workers on a study's cells somewhere, but does not schedule machines."""

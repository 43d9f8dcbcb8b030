"""Reads run tables and says what they can and cannot support: slopes, comparisons, frontiers, claims, reports."""

"""Reads run tables and says what they can and cannot support: slopes, comparisons, frontiers, protocols, claims, reports."""

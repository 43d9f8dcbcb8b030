"""Fitting one law to points: objectives, optimisers and uncertainty."""

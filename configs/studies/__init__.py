"""Studies: each module has a function `study()` that returns a `train.config.StudyConfig`."""

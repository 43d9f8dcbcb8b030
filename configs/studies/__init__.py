"""Studies: each module has a function `study()` that returns a `train.study.config.StudyConfig`."""

"""Text into token shards (`prepare`, once), and token shards into batches (`batches`, a pure function of the step).

Only `prepare` and what it imports lazily touch seqio, TFDS and TensorFlow; everything a trainer
imports is numpy.
"""

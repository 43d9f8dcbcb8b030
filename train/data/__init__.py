"""Text to token shards (`prepare`, once), and shards to batches (a pure function of the step).

Only `prepare`, and modules that it imports when needed, use seqio, TFDS and TensorFlow. Everything
that a trainer imports uses numpy.
"""

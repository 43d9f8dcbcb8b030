"""Pretrains and finetunes the cells of a study; `train.records` is what other rooms read.

Importing the package is light: jax is imported by the modules that compute, TensorFlow only by
`prepare`.
"""

"""Pretrains and finetunes the cells of a study. Other packages read its records by `train.records`.

Importing the package is fast: jax is imported only by modules that compute, TensorFlow only by
`prepare`.
"""

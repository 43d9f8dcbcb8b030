"""The parts that architectures are made of.

Every residual layer is a `layer.Layer`, with one signature for training and decoding.

Axes: B batch, L length (S of the input, T of the target), D model, H heads, K per head, J = H * K,
F feed-forward, V vocabulary, N layers, E experts, W kernel width.
"""

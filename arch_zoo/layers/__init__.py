"""The parts that architectures are made of.

Every residual layer has one signature for training and for decoding, `(x_BLD, ctx, cache=None) ->
(y_BLD, cache, aux)`, and `init_cache(ctx, max_length)`. Axes: B batch, L length (S of the input, T
of the target), D model, H heads, K per head, J = H * K, F feed-forward, V vocabulary, N layers, E
experts, W kernel width.
"""

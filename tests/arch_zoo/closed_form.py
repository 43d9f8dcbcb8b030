"""Parameters and FLOPs, derived on paper.

These are the values that the accounting must find, written without looking at the modules. Scales
of norms count as parameters; norms and activations do not count as FLOPs; a multiply-add counts as
two. S is the input length, T the target length.
"""

BUCKETS = 32


def attention_params(cfg) -> int:
    """Four projections between D and H * K."""
    return 4 * cfg.embed_dim * cfg.num_heads * cfg.head_dim


def feed_forward_params(cfg) -> int:
    """Two matrices."""
    return 2 * cfg.embed_dim * cfg.mlp_dim


def encoder_block_params(cfg) -> int:
    """Two layers, each with a norm."""
    return attention_params(cfg) + feed_forward_params(cfg) + 2 * cfg.embed_dim


def decoder_block_params(cfg) -> int:
    """Three layers, each with a norm."""
    return 2 * attention_params(cfg) + feed_forward_params(cfg) + 3 * cfg.embed_dim


def position_params(cfg) -> int:
    """Relative biases of both stacks, which are looked up and count as embedding."""
    return 2 * BUCKETS * cfg.num_heads


def outside_params(cfg) -> int:
    """Final norms and relative biases of both stacks."""
    return 2 * cfg.embed_dim + position_params(cfg)


def vanilla_params(cfg) -> int:
    """The whole vanilla model, including its single embedding."""
    blocks = cfg.num_encoder_layers * encoder_block_params(
        cfg
    ) + cfg.num_decoder_layers * decoder_block_params(cfg)
    return cfg.vocab_size * cfg.embed_dim + blocks + outside_params(cfg)


def encoder_block_flops(cfg, S: int) -> int:
    """Projections, products with all S keys, and the feed-forward layer, for S positions."""
    products = 4 * S * cfg.num_heads * cfg.head_dim
    return S * (2 * attention_params(cfg) + products + 2 * feed_forward_params(cfg))


def decoder_block_flops(cfg, S: int, T: int) -> int:
    """Self-attention, cross-attention (keys and values of the input), feed-forward layer."""
    self_attention = T * (2 * attention_params(cfg) + 4 * T * cfg.num_heads * cfg.head_dim)
    cross_attention = (S + T) * attention_params(cfg) + 4 * T * S * cfg.num_heads * cfg.head_dim
    return self_attention + cross_attention + T * 2 * feed_forward_params(cfg)


def head_flops(cfg, T: int) -> int:
    """Products of every position with the vectors of all tokens."""
    return 2 * T * cfg.embed_dim * cfg.vocab_size


def vanilla_flops(cfg, S: int, T: int) -> int:
    """The forward pass of one sequence."""
    encoder = cfg.num_encoder_layers * encoder_block_flops(cfg, S)
    return encoder + cfg.num_decoder_layers * decoder_block_flops(cfg, S, T) + head_flops(cfg, T)

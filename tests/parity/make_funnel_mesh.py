"""Golden of the Funnel Transformer.

Mesh TensorFlow's BitransformerFunnel, which pools and says what is padding. Recipe: the environment
of `mesh_tf`, then, from the root of the checkout, `python -m tests.parity.make_funnel_mesh`.

The whole model runs as published: which layers pool, in which order, and what of positions, biases
and segments goes on to later layers and to the decoder is decided there. Padding comes in whole
pairs, because the average of a token and padding is a choice of the zoo's own.
"""

import functools

import numpy as np

from tests.parity import batches, mesh_model, mesh_tf
from tests.parity.mesh_tf import funnel_transformer, transformer_layers

DIM, HIDDEN, HEADS, HEAD_DIM, VOCAB_SIZE, DECODER_LAYERS = 8, 20, 3, 5, 29, 2
BLOCKS = (2, 1, 1)  # encoder layers of each block


def make():
    """The model."""
    attention = functools.partial(
        transformer_layers.SelfAttention,
        num_heads=HEADS,
        key_value_size=HEAD_DIM,
        relative_attention_type="bias_shared",
    )
    cross_attention = functools.partial(
        transformer_layers.EncDecAttention, num_heads=HEADS, key_value_size=HEAD_DIM
    )
    feed_forward = functools.partial(transformer_layers.DenseReluDense, HIDDEN, activation="relu")
    encoder = funnel_transformer.FunnelTransformerLayerStack(
        [layer() for _ in range(sum(BLOCKS)) for layer in (attention, feed_forward)],
        len(BLOCKS),
        list(BLOCKS),
        [1] * len(BLOCKS),
        sublayers_initial=mesh_model.BEFORE,
        sublayers_per_layer=mesh_model.AROUND,
        sublayers_final=mesh_model.AFTER[:-1],  # the stack masks padding itself
    )
    decoder = mesh_model.stack(
        [[attention(), cross_attention(), feed_forward()] for _ in range(DECODER_LAYERS)]
    )
    kind = funnel_transformer.BitransformerFunnel
    return mesh_model.bitransformer(encoder, decoder, DIM, VOCAB_SIZE, kind)


def layer(path: str, there: str, name: str) -> mesh_tf.Names:
    """One residual layer."""
    norm = {f"{path}.norm.scale": mesh_tf.one(f"{there}/rms_norm/scale")}
    if name != "feed_forward":
        title = {"self_attention": "SelfAttention", "cross_attention": "EncDecAttention"}[name]
        return norm | mesh_model.attention(f"{path}.layer", f"{there}/{title}")
    return norm | {
        f"{path}.layer.{part}": mesh_tf.one(f"{there}/DenseReluDense/{part}/kernel")
        for part in ("wi", "wo")
    }


def names() -> mesh_tf.Names:
    """Every parameter; the table of biases belongs to the first layer that uses it there."""
    found = {"embedding.table": mesh_tf.one("shared/embedding")}
    places = {"encoder": [], "decoder": []}
    for block, count in enumerate(BLOCKS):
        places["encoder"] += [
            f"encoder/funnel_block_{block:03d}/param_idx_{index:03d}/submodule_"
            for index in range(count)
        ]
    places["decoder"] = [f"decoder/block_{index:03d}/layer_" for index in range(DECODER_LAYERS)]
    layers = {"encoder": ("self_attention", "feed_forward")}
    layers["decoder"] = ("self_attention", "cross_attention", "feed_forward")
    for side, prefixes in places.items():
        found[f"{side}.norm.scale"] = mesh_tf.one(f"{side}/rms_norm/scale")
        table = f"{prefixes[0]}000/SelfAttention/relative_attention_bias"
        found[f"{side}.positions.table"] = mesh_tf.one(table, np.transpose)
        for depth, prefix in enumerate(prefixes):
            for index, name in enumerate(layers[side]):
                found |= layer(f"{side}.blocks.{depth}.{name}", f"{prefix}{index:03d}", name)
    return found


def main() -> None:
    """Writes the golden."""
    batch = batches.padded((40, 28), (7, 8), VOCAB_SIZE)
    model = {
        "name": "funnel",
        "size": "nano",
        "num_blocks": len(BLOCKS),
        "pools": "attention",
        "num_encoder_layers": sum(BLOCKS),
        "num_decoder_layers": DECODER_LAYERS,
        "embed_dim": DIM,
        "mlp_dim": HIDDEN,
        "num_heads": HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCAB_SIZE,
    }
    mesh_model.golden(make, model, batch, names(), mesh_model.whole).save("funnel-mesh-padded")


if __name__ == "__main__":
    main()

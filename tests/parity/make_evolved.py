"""Golden of the Evolved Transformer: a whole model of Mesh TensorFlow's layers.

Recipe: the environment of `mesh_tf`, then, from the root of the checkout, `python -m
tests.parity.make_evolved`.
"""

import functools

import numpy as np

from tests.parity import batches, mesh_model, mesh_tf
from tests.parity.mesh_tf import evolved_transformer, transformer_layers

DIM, HIDDEN, HEADS, HEAD_DIM, VOCAB_SIZE, BLOCKS = 8, 20, 3, 5, 29, 2


def make():
    """The model."""
    attention = functools.partial(
        transformer_layers.SelfAttention,
        key_value_size=HEAD_DIM,
        relative_attention_type="bias_shared",
    )
    cross_attention = functools.partial(
        transformer_layers.EncDecAttention, num_heads=HEADS, key_value_size=HEAD_DIM
    )
    encoder = [
        [
            evolved_transformer.GatedLinearUnitLayer(),
            evolved_transformer.EncoderConvolutionalLayer(DIM, 0.0),
            attention(num_heads=HEADS),
            transformer_layers.DenseReluDense(HIDDEN, activation="relu"),
        ]
        for _ in range(BLOCKS)
    ]
    decoder = []
    for _ in range(BLOCKS):
        parallel = evolved_transformer.DecoderAttentionLayer(HEADS)
        parallel._self_attention, parallel._enc_dec_attention = (
            attention(num_heads=2 * HEADS),
            cross_attention(),
        )
        decoder.append(
            [
                parallel,
                evolved_transformer.DecoderConvolutionalLayer(DIM, 0.0),
                attention(num_heads=HEADS),
                cross_attention(),
                transformer_layers.DenseReluDense(HIDDEN, activation="swish"),
            ]
        )
    return mesh_model.bitransformer(
        mesh_model.stack(encoder), mesh_model.stack(decoder), DIM, VOCAB_SIZE
    )


def dense(path: str, there: str, bias: bool = True) -> mesh_tf.Names:
    """A dense layer."""
    names = {f"{path}.kernel": mesh_tf.one(f"{there}/kernel")}
    return names | {f"{path}.bias": mesh_tf.one(f"{there}/bias")} if bias else names


def separable(path: str, there: str, width: int) -> mesh_tf.Names:
    """Taps, which are a variable each there, and the dense layer after them."""
    there += "/separable_conv1d"
    return {
        f"{path}.taps": mesh_tf.stacked(
            there + "/depthwise_conv_hack/depthwise_dense_{}/kernel", width
        ),
        f"{path}.bias": mesh_tf.one(f"{there}/depthwise_conv_hack/depthwise_dense_0/bias"),
    } | dense(f"{path}.dense", f"{there}/pointwise_dense")


def layer_norm(path: str, there: str) -> mesh_tf.Names:
    """The norm inside the convolutions."""
    there += "/layer_prepostprocess/layer_norm/layer_norm"
    return {f"{path}.{name}": mesh_tf.one(f"{there}_{name}") for name in ("scale", "bias")}


def feed_forward(path: str, there: str) -> mesh_tf.Names:
    """Both matrices."""
    return {
        f"{path}.{name}": mesh_tf.one(f"{there}/DenseReluDense/{name}/kernel")
        for name in ("wi", "wo")
    }


def gated_linear_unit(path: str, there: str) -> mesh_tf.Names:
    """Both projections."""
    there += "/GatedLinearUnitLayer/glu"
    return dense(f"{path}.linear", f"{there}_0") | dense(f"{path}.gate", f"{there}_1")


def encoder_convolutions(path: str, there: str) -> mesh_tf.Names:
    """Two branches, norm, and the separable convolution."""
    there += "/EncoderConvolutionalLayer"
    right = mesh_tf.one(f"{there}/conv3x1/conv2d/kernel", lambda a: a[0])
    return (
        dense(f"{path}.left", f"{there}/conv1x1/dense", bias=False)
        | {f"{path}.right": right}
        | layer_norm(f"{path}.norm", there)
        | separable(f"{path}.out", f"{there}/sep_conv9x1", 9)
    )


def decoder_convolutions(path: str, there: str) -> mesh_tf.Names:
    """Three separable convolutions and the norm."""
    there += "/DecoderConvolutionalLayer"
    return (
        separable(f"{path}.left", f"{there}/sep_conv11x1", 11)
        | separable(f"{path}.right", f"{there}/sep_conv7x1_1", 7)
        | separable(f"{path}.out", f"{there}/sep_conv7x1_2", 7)
        | layer_norm(f"{path}.norm", there)
    )


def parallel_attention(path: str, there: str) -> mesh_tf.Names:
    """Self-attention beside cross-attention."""
    there += "/DecoderAttentionLayer"
    return mesh_model.attention(
        f"{path}.self_attention", f"{there}/self_attention"
    ) | mesh_model.attention(f"{path}.cross_attention", f"{there}/enc_dec_attention")


def self_attention(path: str, there: str) -> mesh_tf.Names:
    """Four projections."""
    return mesh_model.attention(path, f"{there}/SelfAttention")


def cross_attention(path: str, there: str) -> mesh_tf.Names:
    """Four projections."""
    return mesh_model.attention(path, f"{there}/EncDecAttention")


LAYERS = {
    "encoder": (gated_linear_unit, encoder_convolutions, self_attention, feed_forward),
    "decoder": (
        parallel_attention,
        decoder_convolutions,
        self_attention,
        cross_attention,
        feed_forward,
    ),
}


def names() -> mesh_tf.Names:
    """Every parameter; a table of biases belongs to the first layer that uses it there."""
    attention, parallel = "SelfAttention", "DecoderAttentionLayer/self_attention"
    found = {"embedding.table": mesh_tf.one("shared/embedding")}
    for path, there in (
        ("encoder.positions", f"encoder/block_000/layer_002/{attention}"),
        ("decoder.positions.single", f"decoder/block_000/layer_002/{attention}"),
        ("decoder.positions.double", f"decoder/block_000/layer_000/{parallel}"),
    ):
        found[f"{path}.table"] = mesh_tf.one(f"{there}/relative_attention_bias", np.transpose)
    for side, layers in LAYERS.items():
        found[f"{side}.norm.scale"] = mesh_tf.one(f"{side}/rms_norm/scale")
        for block in range(BLOCKS):
            for position, layer in enumerate(layers):
                title = layer.__name__.removeprefix(f"{side}_")
                path = f"{side}.blocks.{block}.{title}"
                there = f"{side}/block_{block:03d}/layer_{position:03d}"
                found |= layer(f"{path}.layer", there)
                found[f"{path}.norm.scale"] = mesh_tf.one(f"{there}/rms_norm/scale")
    return found


def main() -> None:
    """Writes the golden."""
    batch = batches.padded((15, 9), (17, 8), VOCAB_SIZE)
    # Mesh TensorFlow's convolutions take a 0 for padding, also at the start of the decoder.
    batch["decoder_input_tokens"] = np.where(
        batch["decoder_loss_weights"] > 0, np.maximum(batch["decoder_input_tokens"], 2), 0
    ).astype(np.int32)
    model = {
        "name": "evolved",
        "size": "nano",
        "num_encoder_layers": BLOCKS,
        "num_decoder_layers": BLOCKS,
        "embed_dim": DIM,
        "mlp_dim": HIDDEN,
        "num_heads": HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCAB_SIZE,
    }
    mesh_model.golden(make, model, batch, names()).save("evolved-padded")


if __name__ == "__main__":
    main()

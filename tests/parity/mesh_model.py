"""Whole models of Mesh TensorFlow.

An encoder and a decoder in the form of T5.1.0, made of given layers.
"""

import numpy as np

from tests.parity import batches, mesh_tf
from tests.parity.golden import Golden
from tests.parity.mesh_tf import mtf, tf, transformer

BEFORE = [transformer.sublayer_dropout]
AROUND = [
    transformer.sublayer_rms_norm,
    transformer.sublayer_call_layer,
    transformer.sublayer_dropout,
    transformer.sublayer_residual,
]
AFTER = [
    transformer.sublayer_rms_norm,
    transformer.sublayer_dropout,
    transformer.sublayer_mask_padding,
]


def stack(blocks: list[list]) -> transformer.LayerStack:
    """A stack of blocks of layers, named block_000/layer_000 and so on."""
    layers = []
    for index, block in enumerate(blocks):
        for position, layer in enumerate(block):
            layer.set_name(f"block_{index:03d}/layer_{position:03d}")
            layers.append(layer)
    return transformer.LayerStack(layers, BEFORE, AROUND, AFTER)


def bitransformer(
    encoder,
    decoder,
    dim: int,
    vocab_size: int,
    kind: type[transformer.Bitransformer] = transformer.Bitransformer,
) -> transformer.Bitransformer:
    """Both stacks around one embedding, which gives the logits too; no absolute positions."""
    common = {
        "d_model": dim,
        "input_vocab_size": vocab_size,
        "max_length": 1,
        "positional_embedding": False,
        "shared_embedding_and_softmax_weights": True,
        "vocab_divisor": 1,
        "layout": "",
        "mesh_shape": "",
    }
    return kind(
        transformer.Unitransformer(
            encoder, output_vocab_size=None, autoregressive=False, name="encoder", **common
        ),
        transformer.Unitransformer(
            decoder, output_vocab_size=vocab_size, autoregressive=True, name="decoder", **common
        ),
        shared_embedding=True,
    )


def attention(path: str, there: str) -> mesh_tf.Names:
    """The four projections."""
    names = {"query": "q", "key": "k", "value": "v", "out": "o"}
    return {f"{path}.{name}": mesh_tf.one(f"{there}/{short}") for name, short in names.items()}


def whole(built, mesh, given, batch: dict[str, np.ndarray]) -> mtf.Tensor:
    """Logits of the model's own call, which shifts targets and knows the memory's padding."""
    logits, _ = built.call_simple(
        given(batch["encoder_input_tokens"]),
        given(batch["decoder_target_tokens"]),
        compute_loss=False,
        mode=tf.estimator.ModeKeys.EVAL,
        encoder_sequence_id=given(batches.segments(batch, "encoder")),
        decoder_sequence_id=given(batches.segments(batch, "decoder")),
    )
    return logits


def in_parts(built, mesh, given, batch: dict[str, np.ndarray]) -> mtf.Tensor:
    """Logits of both stacks called separately, the decoder on the batch's own inputs.

    They must not hold zeros: the convolutions of Mesh TensorFlow take them for padding.
    """
    assert (batch["decoder_input_tokens"] > 0).sum() == batch["decoder_loss_weights"].sum()
    shared = built._shared_params(mesh, mtf.VariableDType(tf.float32))
    source_ids = given(batches.segments(batch, "encoder"))
    common = {"compute_loss": False, "mode": tf.estimator.ModeKeys.EVAL, "shared_params": shared}
    memory, _ = built.encoder.call_simple(
        given(batch["encoder_input_tokens"]), None, sequence_id=source_ids, **common
    )
    logits, _ = built.decoder.call_simple(
        given(batch["decoder_input_tokens"]),
        given(batch["decoder_target_tokens"]),
        sequence_id=given(batches.segments(batch, "decoder")),
        encoder_output=mtf.layers.rename_length_to_memory_length(memory),
        encoder_sequence_id=mtf.layers.rename_length_to_memory_length(source_ids),
        **common,
    )
    return logits


def golden(
    make, model: dict, batch: dict[str, np.ndarray], names: mesh_tf.Names, run=in_parts
) -> Golden:
    """Runs the model that `make()` builds, on a batch without packing; `run` says how."""
    tf.disable_v2_behavior()

    def build(mesh):
        rows = mtf.Dimension("batch", len(batch["encoder_input_tokens"]))

        def given(array):
            shape = mtf.Shape([rows, mtf.Dimension("length", array.shape[1])])
            return mtf.import_tf_tensor(mesh, tf.constant(array, tf.int32), shape)

        built = make()
        logits = run(built, mesh, given, batch)
        vocab = built.decoder.output_vocab_dim
        targets = mtf.one_hot(given(batch["decoder_target_tokens"]), vocab, dtype=tf.float32)
        weights = mtf.cast(given(batch["decoder_loss_weights"]), tf.float32)
        nll = -mtf.reduce_sum(mtf.log_softmax(logits, vocab) * targets, reduced_dim=vocab)
        loss = mtf.reduce_sum(nll * weights) / float(batch["decoder_loss_weights"].sum())
        return {"logits": logits, "loss": loss}, loss, {}

    weights, outputs, gradients = mesh_tf.solve(build, names)
    return Golden(mesh_tf.VERSIONS, model, batch, weights, outputs, gradients)

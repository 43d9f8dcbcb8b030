"""Golden of the mixture of softmaxes: Mesh TensorFlow's MixtureOfSoftmaxes, the head alone.

Recipe: the environment of `mesh_tf`, then, from the root of the checkout, `python -m
tests.parity.make_mos`.
"""

import numpy as np

from tests.parity import mesh_tf
from tests.parity.mesh_tf import mtf, vocab_embeddings

DIM, VOCAB_SIZE, COMPONENTS = 6, 11, 3
NAMES: mesh_tf.Names = {
    "embedding.table": mesh_tf.one("mos_embedding_weights"),
    "head.weights": mesh_tf.one("mos_mixture_weights"),
    "head.contexts": mesh_tf.one("mos_context_weights"),
}


def call(context, x):
    """Log-probabilities [B, L, V]."""
    vocab_dim = mtf.Dimension("vocab", VOCAB_SIZE)
    head = vocab_embeddings.MixtureOfSoftmaxes(
        context.mesh, vocab_dim, x.shape.dims[-1], context.variable_dtype, "mos", None, COMPONENTS
    )
    return mtf.transpose(
        head.hidden_to_logits(x, context), mtf.Shape([*x.shape.dims[:-1], vocab_dim])
    )


def main() -> None:
    """Writes the golden."""
    model = {
        "name": "mos",
        "size": "nano",
        "embed_dim": DIM,
        "vocab_size": VOCAB_SIZE,
        "num_components": COMPONENTS,
    }
    segment_ids = np.ones((2, 5), np.int32)
    mesh_tf.golden(call, model, "head", segment_ids, DIM, NAMES, causal=True).save("mos-head")


if __name__ == "__main__":
    main()

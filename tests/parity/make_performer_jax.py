"""Goldens of the Performer's attention.

Its authors' code as Long Range Arena has it, epsilons as published. Recipe: the environment of
`jax_layer`, a checkout of google-research/long-range-arena (commit
cd31e5c6b8e5bceabd28de2d2afb23f7ae5d36d8), then, from the root of this checkout, `python -m
tests.parity.make_performer_jax CHECKOUT`.

Both attentions are made by their makers with the published defaults: 0.001 is added to ReLU
features, 0.000001 to those of the softmax, whose features are first divided by the largest of all
keys. The zoo divides by each key's own largest, so that nothing later is seen. On queries and keys
as short as these the difference is a tenth of the tolerance, while an epsilon a hundred times as
large would exceed it five times; on longer ones the two differ by more.
"""

import importlib
import sys
from pathlib import Path

import numpy as np

from tests.parity import jax_layer

LENGTH, DIM, HEADS, HEAD_DIM, FEATURES = 9, 12, 3, 6, 14


def linear_attention(fast, scale: float):
    """Projections as in T5 around `fast(query, key, value)`.

    `scale` is what T5 folds into its queries.
    """

    def call(weights, x_BLD):
        def heads(name):
            return (x_BLD @ weights[name]).reshape(*x_BLD.shape[:2], HEADS, HEAD_DIM)

        y_BLHK = fast(scale * heads("query"), heads("key"), heads("value"))
        return y_BLHK.reshape(*y_BLHK.shape[:2], -1) @ weights["out"]

    return call


def main(checkout: Path) -> None:
    """Writes the goldens."""
    sys.path.insert(0, str(checkout))
    fast_attention = importlib.import_module("lra_benchmarks.models.performer.performer_attention")

    rng = np.random.default_rng(0)
    joined = HEADS * HEAD_DIM
    shapes = {
        "query": (DIM, joined),
        "key": (DIM, joined),
        "value": (DIM, joined),
        "out": (joined, DIM),
    }
    weights = {
        name: rng.standard_normal(shape).astype(np.float32) * shape[0] ** -0.5
        for name, shape in shapes.items()
    }
    weights["query"] *= 0.3 * HEAD_DIM**-0.5
    weights["key"] *= 0.3
    x_BLD = rng.standard_normal((2, LENGTH, DIM)).astype(np.float32)
    settings = {
        "embed_dim": DIM,
        "num_heads": HEADS,
        "head_dim": HEAD_DIM,
        "num_features": FEATURES,
    }
    for kernel, make, scale, options in (
        ("relu", fast_attention.make_fast_generalized_attention, 1.0, {}),
        (
            "softmax",
            fast_attention.make_fast_softmax_attention,
            HEAD_DIM**0.5,  # it divides its logits by the square root of K, T5 does not
            {"nb_features": FEATURES, "redraw_features": False},
        ),
    ):
        for side in ("encoder", "decoder"):
            fast = make(HEAD_DIM, unidirectional=side == "decoder", **options)
            model = {"name": "performer", "size": "nano", "kernel": kernel, **settings}
            oracle = f"long-range-arena cd31e5c, {jax_layer.VERSIONS}"
            layer = f"{side}.blocks.0.self_attention.layer"
            call = linear_attention(fast, scale)
            golden = jax_layer.golden(oracle, model, layer, call, weights, x_BLD, side == "decoder")
            if kernel == "softmax":
                golden.constants["directions"] = np.asarray(fast.__self__.projection_matrix)
            golden.save(f"performer-{kernel}-{side}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

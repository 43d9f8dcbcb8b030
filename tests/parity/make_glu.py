"""Goldens of the gated feed-forward layers: Hugging Face's T5 with `gated-<activation>`.

Recipe, in an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from
the root of the checkout, `python -m tests.parity.make_glu`. T5's `gated-gelu` means the tanh
approximation.
"""

from tests.parity import batches, t5_torch

VARIANTS = {
    "glu": "gated-sigmoid",
    "geglu": "gated-gelu",
    "swiglu": "gated-silu",
    "reglu": "gated-relu",
}


def main() -> None:
    """Writes the goldens."""
    batch = batches.padded((9, 5), (7, 8), t5_torch.DIMENSIONS["vocab_size"])
    for variant, feed_forward in VARIANTS.items():
        model = t5_torch.build(t5_torch.DIMENSIONS, feed_forward)
        t5_torch.randomise(model)
        config = {"name": "glu", "size": "nano", "variant": variant, **t5_torch.DIMENSIONS}
        weights = t5_torch.mapped(model, config)
        t5_torch.check_complete(model, weights)
        scores = t5_torch.logits(model, batch)
        t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, scores).save(f"glu-{variant}")


if __name__ == "__main__":
    main()

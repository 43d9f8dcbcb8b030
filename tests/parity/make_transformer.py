"""Goldens of the vanilla Transformer: Hugging Face's T5ForConditionalGeneration, padded and packed.

As a language model it is T5's decoder, whose cross-attention then adds nothing. With a prefix that
looks ahead, T5's buckets of distances are those of its encoder.

Recipe, in an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from
the root of the checkout, `python -m tests.parity.make_transformer`.
"""

from tests.parity import batches, t5_torch


def main() -> None:
    """Writes the goldens."""
    model = t5_torch.build(t5_torch.DIMENSIONS)
    t5_torch.randomise(model)
    config = {"name": "transformer", "size": "nano", **t5_torch.DIMENSIONS}
    weights = t5_torch.mapped(model, config)
    t5_torch.check_complete(model, weights)
    vocab_size = t5_torch.DIMENSIONS["vocab_size"]
    cases = {
        # Longer than the 128 positions that the relative bias tells apart.
        "padded": batches.padded((150, 37), (140, 20), vocab_size),
        "packed": batches.packed(
            [[(19, 7), (3, 12), (9, 1)], [(20, 11), (14, 9)]], vocab_size, spare=3
        ),
    }
    for case, batch in cases.items():
        scores = t5_torch.logits(model, batch)
        t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, scores).save(
            f"transformer-{case}"
        )
    make_language_models(cases)


def make_language_models(cases: dict[str, dict]) -> None:
    """Writes the goldens of the decoder alone."""
    model = t5_torch.build(t5_torch.DIMENSIONS)
    t5_torch.randomise(model)
    t5_torch.silence(model)
    both = {"name": "transformer", "size": "nano", **t5_torch.DIMENSIONS}
    weights = t5_torch.language_model(t5_torch.mapped(model, both))
    t5_torch.check_complete(model, weights, t5_torch.SILENT)
    config = {"name": "transformer", "size": "nano", **t5_torch.DECODER_ONLY}
    rows = {case: batches.decoder_only(batch) for case, batch in cases.items()}

    def save(case: str, config: dict, batch: dict) -> None:
        scores = t5_torch.language_model_logits(model, batch)
        t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, scores).save(
            f"transformer-lm-{case}"
        )

    for case, batch in rows.items():
        save(case, config, batch)
    # The first block makes the bias of all; it now counts later positions too.
    model.decoder.block[0].layer[0].SelfAttention.is_decoder = False
    for case, batch in rows.items():
        save(f"prefix-{case}", config | {"prefix": "bidirectional"}, batches.with_prefix(batch))


if __name__ == "__main__":
    main()

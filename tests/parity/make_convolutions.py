"""Goldens of lightweight and dynamic convolutions in fairseq's form.

Its TBC classes in the skeleton of T5; as a language model, in the skeleton of T5's decoder, whose
cross-attention then adds nothing. Recipe, in an environment of its own (never the project's):
`pip install torch==2.13.0 transformers==5.23.0`, a checkout of fairseq (`fairseq_torch` names the
commit), then, from the root of this checkout, `python -m tests.parity.make_convolutions FAIRSEQ`.
The form of Mesh TensorFlow is in `make_convolutions_mesh`.
"""

import sys
from pathlib import Path

from tests.parity import batches, fairseq_torch, t5_torch
from tests.parity.t5_torch import Weight

WIDTHS = (3, 7, 5)


def lightweight(layer: fairseq_torch.Convolution, path: str) -> dict[str, Weight]:
    """Projections, and the kernel: [heads, 1, width] there, [width, heads] in the zoo."""
    kernel = Weight(layer.conv.weight, lambda a: a[:, 0].T)
    return fairseq_torch.projections(layer, path) | {f"{path}.kernel": kernel}


def dynamic(layer: fairseq_torch.Convolution, path: str) -> dict[str, Weight]:
    """Projections, and the predictor.

    [heads * width, channels] there, [width, channels, heads] in the zoo.
    """
    heads = layer.conv.num_heads
    kernel = Weight(
        layer.conv.weight_linear.weight,
        lambda a: a.reshape(heads, -1, a.shape[1]).transpose(1, 2, 0),
    )
    return fairseq_torch.projections(layer, path) | {f"{path}.kernel": kernel}


def main(checkout: Path) -> None:
    """Writes the goldens."""
    static, predicted, sinusoids = fairseq_torch.modules(checkout)
    vectors = sinusoids.SinusoidalPositionalEmbedding(
        t5_torch.DIMENSIONS["embed_dim"], padding_idx=0
    )
    make("lconv", static.LightweightConv1dTBC, lightweight, vectors)
    make("dconv", predicted.DynamicConv1dTBC, dynamic, vectors)


def make(name: str, convolution, mixer, vectors) -> None:
    """Writes the goldens of one architecture, the last one with fairseq's vectors of positions."""
    dimensions = t5_torch.DIMENSIONS
    model = t5_torch.build(dimensions)
    fairseq_torch.replace_attention(model, WIDTHS, convolution)
    t5_torch.randomise(model)
    weights = t5_torch.parameters(model, mixer)
    t5_torch.check_complete(model, weights)
    cases = {
        "padded": batches.padded((9, 2), (17, 8), dimensions["vocab_size"]),
        "packed": batches.packed(
            [[(9, 7), (3, 12)], [(1, 11), (4, 9)]], dimensions["vocab_size"], spare=2
        ),
    }
    for case, batch in cases.items():
        t5_torch.set_segments(model, batch)
        config = {"name": name, "size": "nano", "form": "fairseq", "widths": WIDTHS, **dimensions}
        scores = t5_torch.logits(model, batch)
        t5_torch.golden(fairseq_torch.VERSIONS, config, batch, weights, scores).save(
            f"{name}-fairseq-{case}"
        )
    for stack in (model.encoder, model.decoder):
        stack.embed_tokens = fairseq_torch.Positioned(model.shared, vectors)
    fairseq_torch.set_positions(model, batch)
    scores = t5_torch.logits(model, batch)
    config["form"] = "fairseq_sinusoids"
    t5_torch.golden(fairseq_torch.VERSIONS, config, batch, weights, scores).save(
        f"{name}-fairseq-sinusoids"
    )
    t5_torch.silence(model)
    config = {"name": name, "size": "nano", "form": "fairseq_sinusoids", "widths": WIDTHS}
    weights = t5_torch.language_model(weights)
    t5_torch.check_complete(model, weights, t5_torch.SILENT)
    batch = batches.decoder_only(batch)
    scores = t5_torch.language_model_logits(model, batch)
    config |= t5_torch.DECODER_ONLY
    t5_torch.golden(fairseq_torch.VERSIONS, config, batch, weights, scores).save(
        f"{name}-lm-fairseq-sinusoids"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

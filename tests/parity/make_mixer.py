"""Golden of the MLP-Mixer: a token-mixing layer of torch's Linear and GELU in T5's encoder.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0`, then, from the root of the checkout, `python -m tests.parity.make_mixer`.
This shows the layer's place in a model; the published code of the layer itself runs in
`make_mixer_jax`.
"""

from torch import nn

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

LENGTH, TOKEN_MLP_DIM = 10, 7


class TokenMixing(nn.Module):
    """An MLP over positions, in the place of T5's attention."""

    def __init__(self):
        """Makes both layers."""
        super().__init__()
        self.wi = nn.Linear(LENGTH, TOKEN_MLP_DIM)
        self.wo = nn.Linear(TOKEN_MLP_DIM, LENGTH)
        self.real = None

    def forward(self, x, **unused):
        """The signature of T5Attention: output, position bias, attention weights."""
        x = (x * self.real).transpose(1, 2)
        return (
            self.wo(nn.functional.gelu(self.wi(x), approximate="tanh")).transpose(1, 2),
            None,
            None,
        )


def mixer(layer, path: str) -> dict[str, Weight]:
    """Attention in the decoder, token mixing in the encoder."""
    if not isinstance(layer, TokenMixing):
        return t5_torch.attention(layer, path)
    weights = {}
    for name in ("wi", "wo"):
        for key, weight in t5_torch.linear(getattr(layer, name), name).items():
            weights[f"{path}.{name}" if key.endswith("kernel") else f"{path}.{name}_bias"] = weight
    return weights


def main() -> None:
    """Writes the golden."""
    dimensions = t5_torch.DIMENSIONS
    model = t5_torch.build(dimensions)
    batch = batches.padded((LENGTH, 6), (7, 8), dimensions["vocab_size"])
    for block in model.encoder.block:
        block.layer[0].SelfAttention = TokenMixing()
        block.layer[0].SelfAttention.real = t5_torch.torch.tensor(
            batches.segments(batch, "encoder")
        )[..., None]
    t5_torch.randomise(model)
    weights = t5_torch.parameters(model, mixer)
    t5_torch.check_complete(model, weights)
    lengths = {"max_input_length": LENGTH, "token_mlp_dim": TOKEN_MLP_DIM}
    config = {"name": "mixer", "size": "nano", **lengths, **dimensions}
    scores = t5_torch.logits(model, batch)
    t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, scores).save("mixer-padded")


if __name__ == "__main__":
    main()

"""Goldens of gated linear attention: that of fla-core in Hugging Face's Llama, as a language model.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0` and `pip install --no-deps --target FOLDER fla-core==0.6.0`, then, from the
root of the checkout, `python -m tests.parity.make_gla FOLDER`.

Llama's attention is replaced by a layer around `fla/ops/gla/naive.py`, which goes from position to
position.
"""

import torch
from torch import nn

from tests.parity import make_retnet, segments_torch
from tests.parity.segments_torch import DIMENSIONS

RANK, TEMPERATURE = 5, 3.0  # decays that matter within a row


class GatedLinearAttention(make_retnet.Recurrent):
    """The decays of a head's rows depend on the input."""

    def __init__(self):
        """Keys of half the width."""
        width = DIMENSIONS["head_dim"]
        super().__init__(width // 2, width)
        keys = self.heads * width // 2
        self.decay_in = nn.Linear(DIMENSIONS["embed_dim"], RANK, bias=False)
        self.decay_out = nn.Linear(RANK, keys)

    def mix(self, x, q, k, v, angles) -> torch.Tensor:
        """No positions."""
        decay = nn.functional.logsigmoid(self.decay_out(self.decay_in(x))) / TEMPERATURE
        return segments_torch.naive("gla").naive_recurrent_gla(q, k, v, decay.view(q.shape))[0]


def mixer(layer: nn.Module):
    """With the projection to the decays."""
    own = layer.self_attn
    decays = segments_torch.linear(decay_in=own.decay_in, **{"decay_out.kernel": own.decay_out})
    bias = {"decay_out.bias": segments_torch.Weight(own.decay_out.bias)}
    return make_retnet.mixer(layer) | decays | bias


def main() -> None:
    """Writes the goldens."""
    model = make_retnet.build(GatedLinearAttention)
    weights = segments_torch.parameters(model, mixer)
    options = {"rank": RANK, "temperature": TEMPERATURE}
    segments_torch.save("gla", make_retnet.ORACLE, model, weights, options)


if __name__ == "__main__":
    main()

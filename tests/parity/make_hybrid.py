"""Golden of a hybrid: Hugging Face's Llama in which one layer has the mixer of its Qwen3-Next.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0`, then, from the root of the checkout, `python -m tests.parity.make_hybrid`.
"""

from torch import nn
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from tests.parity import make_gated_deltanet, segments_torch, t5_torch


class Linear(nn.Module):
    """Qwen3-Next's linear attention with the interface of Llama's attention."""

    def __init__(self):
        """The layer of the golden of Gated DeltaNet."""
        super().__init__()
        config = make_gated_deltanet.build().config
        self.linear_attn = Qwen3NextGatedDeltaNet(config, 0)

    def forward(self, hidden_states, **unused):
        """Positions and masks are not needed."""
        return self.linear_attn(hidden_states), None


def mixer(layer: nn.Module) -> dict[str, t5_torch.Weight]:
    """The parameters of either mixer."""
    own = layer.self_attn
    if isinstance(own, Linear):
        return make_gated_deltanet.mixer(own)
    return segments_torch.attention(layer)


def main() -> None:
    """Writes the goldens."""
    model = segments_torch.llama()
    model.model.layers[0].self_attn = Linear()
    t5_torch.randomise(model)
    options = {"pattern": ("gated_deltanet", "llama"), "norm_epsilon": 1e-6}
    weights = segments_torch.parameters(model, mixer)
    segments_torch.save("hybrid", t5_torch.VERSIONS, model, weights, options)


if __name__ == "__main__":
    main()

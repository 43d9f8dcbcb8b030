"""Goldens of the Universal Transformer without halting.

Hugging Face's T5, one block at every depth of a stack. A learned vector is added to the state
before each step. Recipe, in an environment of its own (never the project's): `pip install
torch==2.13.0 transformers==5.23.0`, then, from the root of the checkout, `python -m
tests.parity.make_universal`.
"""

import torch
from torch import nn

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight


class Step(nn.Module):
    """The shared block with the signal of one step."""

    def __init__(self, shared: nn.Module, signal: nn.Parameter, index: int):
        """Keeps the block under the name `shared`, by which `t5_torch.parameters` knows it."""
        super().__init__()
        self.shared, self.signal, self.index = shared, signal, index

    def forward(self, x, *args, **kwargs):
        """Adds the signal, runs the block."""
        return self.shared(x + self.signal[self.index], *args, **kwargs)


def main() -> None:
    """Writes the goldens."""
    dimensions = t5_torch.DIMENSIONS
    model = t5_torch.build(dimensions)
    weights = {}
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        steps = len(stack.block)
        signal = nn.Parameter(torch.zeros(steps, dimensions["embed_dim"]))
        stack.block = nn.ModuleList(Step(stack.block[0], signal, index) for index in range(steps))
        weights[f"{side}.step_signal"] = Weight(signal)
    t5_torch.randomise(model)
    weights |= t5_torch.parameters(model)
    t5_torch.check_complete(model, weights)
    cases = {
        "padded": batches.padded((9, 25), (17, 8), dimensions["vocab_size"]),
        "packed": batches.packed([[(9, 7), (3, 12)], [(10, 11), (4, 9)]], dimensions["vocab_size"]),
    }
    for case, batch in cases.items():
        config = {"name": "universal", "size": "nano", **dimensions}
        scores = t5_torch.logits(model, batch)
        t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, scores).save(f"universal-{case}")


if __name__ == "__main__":
    main()

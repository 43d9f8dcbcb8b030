"""Multipliers of the mup package, Microsoft's own, on a model of two layers.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0 mup==1.0.0`,
then, from the root of the checkout, `python -m tests.parity.make_mup`.

For each role of a parameter and three widths it writes by what the package multiplies Adam's
learning rate and the initial standard deviation, and the logits.
"""

import copy
import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import mup
import torch
from torch import nn

from tests.parity import golden

BASE, WIDTHS, VOCAB = 32, (32, 64, 256), 64
ROLES = ("embedding", "vector", "matrix", "head")  # names of layers below


class TwoLayers(nn.Module):
    """An embedding, a feed-forward layer with a norm before it, and an output layer."""

    def __init__(self, width: int):
        """Draws nothing that is used: only shapes and the package's marks count."""
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.vector = nn.LayerNorm(width, bias=False)
        self.matrix = nn.Linear(width, 4 * width, bias=False)
        self.back = nn.Linear(4 * width, width, bias=False)
        self.head = mup.MuReadout(width, VOCAB, bias=False)


def multipliers(width: int) -> dict[str, Any]:
    """What the package does at one width, as factors of what it does at the base."""
    model = TwoLayers(width)
    mup.set_base_shapes(model, TwoLayers(BASE), delta=TwoLayers(2 * BASE))
    roles = {name: getattr(model, name).weight for name in ROLES}
    optimizer = mup.MuAdam(model.parameters(), lr=1.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    x = torch.ones(1, width)
    return {
        "width": width,
        "rate": {name: rates[id(p)] for name, p in roles.items()},
        "stddev": {name: _stddev(p) for name, p in roles.items() if name != "vector"},
        "logits": float(
            (model.head(x) / nn.functional.linear(x, model.head.weight)).detach().mean()
        ),
    }


def _stddev(parameter: nn.Parameter) -> float:
    """The package's initial standard deviation where 1 is asked for."""

    def drawn(initialise: Callable[..., Any]) -> torch.Tensor:
        torch.manual_seed(0)
        initialise(parameter, std=1.0)
        return copy.deepcopy(parameter.data)

    return float(_ratio(drawn(mup.init.normal_), drawn(nn.init.normal_)))


def _ratio(found: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    return (found / plain).detach().mean()


def main() -> None:
    """Writes the multipliers."""
    about = f"mup {importlib.metadata.version('mup')}, MuAdam"
    content = {"oracle": about, "base_width": BASE, "cases": [multipliers(w) for w in WIDTHS]}
    (golden.FOLDER / "mup.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

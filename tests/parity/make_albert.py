"""Goldens of ALBERT: Hugging Face's T5 with one block per group and a factorised embedding.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0`, then, from the root of the checkout, `python -m tests.parity.make_albert`.
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

FACTOR = 5


class Product(nn.Module):
    """Makes T5's embedding the product of a table [V, R] and an expansion [R, D] everywhere."""

    def __init__(self, vocab_size: int, dim: int):
        """Makes room for the factors."""
        super().__init__()
        self.shared_table = nn.Parameter(torch.zeros(vocab_size, FACTOR))
        self.expansion = nn.Parameter(torch.zeros(FACTOR, dim))

    def forward(self, ignored: torch.Tensor) -> torch.Tensor:
        """The product [V, D]; the embedding's own weight has no effect."""
        return self.shared_table @ self.expansion


def build(groups: int):
    """The model and its parameters by the zoo's names."""
    dimensions = t5_torch.DIMENSIONS
    model = t5_torch.build(dimensions)
    for stack in (model.encoder, model.decoder):
        count = len(stack.block)
        stack.block = nn.ModuleList(stack.block[depth * groups // count] for depth in range(count))
    product = Product(dimensions["vocab_size"], dimensions["embed_dim"])
    parametrize.register_parametrization(model.shared, "weight", product)
    for stack in (model.encoder, model.decoder):
        stack.embed_tokens = model.shared
    weights = t5_torch.parameters(model)
    weights["embedding.table"] = Weight(product.shared_table)
    weights["embedding.expansion"] = Weight(product.expansion)
    return model, weights


def main() -> None:
    """Writes the goldens."""
    dimensions = t5_torch.DIMENSIONS
    batch = batches.padded((9, 5), (7, 8), dimensions["vocab_size"])
    for groups in (1, 2):
        model, weights = build(groups)
        t5_torch.randomise(model)
        config = {
            "name": "albert",
            "size": "nano",
            "groups": groups,
            "factor": FACTOR,
            **dimensions,
        }
        scores = t5_torch.logits(model, batch)
        t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, scores).save(
            f"albert-{groups}-groups"
        )


if __name__ == "__main__":
    main()

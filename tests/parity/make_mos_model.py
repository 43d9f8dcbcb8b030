"""Golden of a whole model with a mixture of softmaxes.

Hugging Face's T5, its output layer a mixture of probabilities. The mixture is the paper's formula
in PyTorch, probabilities first and one logarithm at the end; that the formula is Mesh TensorFlow's
layer too is what the golden of `make_mos` says.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0`, then, from the root of the checkout, `python -m tests.parity.make_mos_model`.
"""

import torch
from torch import nn

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

COMPONENTS = 3


class Mixture(nn.Module):
    """Weights [K, D] and projections [K, D, D]; zeros until they are drawn."""

    def __init__(self, dim: int):
        """Makes room for the parameters."""
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(COMPONENTS, dim))
        self.contexts = nn.Parameter(torch.zeros(COMPONENTS, dim, dim))

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [B, T, V] from scaled outputs [B, T, D]."""
        pi = torch.softmax(x @ self.weights.T, dim=-1)
        probabilities = torch.zeros(*x.shape[:2], len(table), dtype=torch.float64)
        for k in range(COMPONENTS):
            logits = torch.tanh(x @ self.contexts[k]) @ table.T
            probabilities = probabilities + pi[..., k : k + 1].double() * torch.softmax(
                logits.double(), dim=-1
            )
        return probabilities.log().float()


def main() -> None:
    """Writes the golden."""
    dimensions = t5_torch.DIMENSIONS
    model = t5_torch.build(dimensions)
    head = Mixture(dimensions["embed_dim"])
    model.mixture = head
    t5_torch.randomise(model)
    weights = t5_torch.parameters(model)
    weights |= {"head.weights": Weight(head.weights), "head.contexts": Weight(head.contexts)}
    t5_torch.check_complete(model, weights)
    batch = batches.padded((9, 5), (7, 8), dimensions["vocab_size"])
    scores = head(
        t5_torch.decode(model, batch) * dimensions["embed_dim"] ** -0.5, model.shared.weight
    )
    config = {"name": "mos", "size": "nano", "num_components": COMPONENTS, **dimensions}
    t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, scores).save("mos-padded")


if __name__ == "__main__":
    main()

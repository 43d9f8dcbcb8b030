"""Goldens of the Performer in both kernels.

The functions of performer-pytorch in the skeleton of T5; a packed language model in that of T5's
decoder, whose cross-attention then adds nothing. Recipe, in an environment of its own
(never the project's): `pip install torch==2.13.0 transformers==5.23.0`, then `pip install
performer-pytorch==1.1.4` with torch pinned to what is installed; then, from the root of the
checkout, `python -m tests.parity.make_performer`.

The random features are shared. Two numbers that performer-pytorch adds against division by zero are
not comparable: the one in its causal sums is left out; the one added to features is here, as in the
zoo, relative to the largest feature of the same query or key, where the published code takes the
largest of all keys and so looks ahead. `make_performer_jax` has its authors' code with its own
numbers.
"""

import dataclasses

import numpy as np
import torch
from performer_pytorch import performer_pytorch
from torch import nn

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

FEATURES, EPSILON, LENGTHS = 9, 1e-6, {"encoder": 40, "decoder": 50}


def features(q: torch.Tensor, k: torch.Tensor, directions: torch.Tensor | None):
    """Those of queries and keys [B, H, L, K]."""
    if directions is None:
        kernel, options = performer_pytorch.generalized_kernel, {"projection_matrix": None}
        q, k = (kernel(u, normalize_data=False, **options) for u in (q, k))
        return q, k
    # T5 has no 1/sqrt(K) in its logits; the zoo balances queries and keys by K^1/4.
    balance = q.shape[-1] ** 0.25
    options = {"projection_matrix": directions, "normalize_data": False, "eps": 0.0}
    q = performer_pytorch.softmax_kernel(q * balance, is_query=True, **options)
    k = performer_pytorch.softmax_kernel(k / balance, is_query=False, **options)
    q, k = (u + EPSILON * u.amax(dim=-1, keepdim=True).detach() for u in (q, k))
    return q, k


class LinearAttention(t5_torch.PerSegment):
    """Multi-head attention with performer-pytorch's kernels."""

    def __init__(self, attention: nn.Module, causal: bool, directions: torch.Tensor | None):
        """Takes the projections of T5's attention.

        `directions` [M, K] of the softmax kernel, None for ReLU.
        """
        super().__init__()
        self.q, self.k, self.v, self.o = attention.q, attention.k, attention.v, attention.o
        self.heads, self.causal, self.directions = attention.n_heads, causal, directions

    def mix(self, x):
        """One sequence [L, D]."""
        q, k, v = (
            part(x).view(1, len(x), self.heads, -1).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        q, k = features(q, k, self.directions)
        if self.causal:
            y = performer_pytorch.causal_linear_attention_noncuda(q, k, v, chunk_size=1, eps=0.0)
        else:
            y = performer_pytorch.linear_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(len(x), -1))


class Positioned(nn.Module):
    """T5's embedding plus a learned vector for each position."""

    def __init__(self, embedding: nn.Embedding, length: int):
        """Makes room for the vectors."""
        super().__init__()
        self.embedding, self.signal = embedding, nn.Embedding(length, embedding.embedding_dim)
        self.positions = torch.zeros(0)

    def forward(self, ids):
        """The signature of an embedding."""
        return self.embedding(ids) + self.signal(self.positions)


def build(kernel: str):
    """The model, its parameters by the zoo's names, and its random features."""
    dimensions = t5_torch.DIMENSIONS
    model = t5_torch.build(dimensions)
    torch.manual_seed(0)
    features = {}
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        stack.embed_tokens = Positioned(model.shared, LENGTHS[side])
        for index, block in enumerate(stack.block):
            directions = None
            if kernel == "softmax":
                directions = performer_pytorch.gaussian_orthogonal_random_matrix(
                    FEATURES, dimensions["head_dim"]
                )
                features[f"{side}.blocks.{index}.self_attention.layer.directions"] = (
                    directions.numpy()
                )
            attention = block.layer[0].SelfAttention
            block.layer[0].SelfAttention = LinearAttention(attention, side == "decoder", directions)
    t5_torch.randomise(model)
    for stack in (model.encoder, model.decoder):
        for block in (
            stack.block
        ):  # T5's own scale: without it the logits, and so the features, are out of all proportion
            block.layer[0].SelfAttention.q.weight.data *= dimensions["head_dim"] ** -0.5
    weights = t5_torch.parameters(model)
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        weights[f"{side}.positions.table"] = Weight(stack.embed_tokens.signal.weight)
    t5_torch.check_complete(model, weights)
    return model, weights, features


def set_positions(model, batch) -> None:
    """Sets the positions of both stacks, which restart in every packed segment."""
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        segment_ids = batches.segments(batch, side)
        default = np.broadcast_to(np.arange(segment_ids.shape[1]), segment_ids.shape)
        stack.embed_tokens.positions = torch.tensor(
            np.array(batch.get(f"{side}_positions", default))
        )


def main() -> None:
    """Writes the goldens."""
    dimensions = t5_torch.DIMENSIONS
    cases = {
        "padded": batches.padded((9, 25), (17, 8), dimensions["vocab_size"]),
        "packed": batches.packed(
            [[(9, 7), (3, 12)], [(10, 11), (4, 9)]], dimensions["vocab_size"], spare=2
        ),
    }
    for kernel in ("relu", "softmax"):
        model, weights, features = build(kernel)
        for case, batch in cases.items():
            t5_torch.set_segments(model, batch)
            set_positions(model, batch)
            lengths = {
                "max_input_length": LENGTHS["encoder"],
                "max_target_length": LENGTHS["decoder"],
            }
            config = {
                "name": "performer",
                "size": "nano",
                "kernel": kernel,
                **lengths,
                **dimensions,
            }
            if features:
                config["num_features"] = FEATURES
            oracle = f"performer-pytorch 1.1.4, {t5_torch.VERSIONS}"
            golden = t5_torch.golden(oracle, config, batch, weights, t5_torch.logits(model, batch))
            dataclasses.replace(golden, constants=features).save(f"performer-{kernel}-{case}")
        make_language_model(kernel, model, weights, features)


def make_language_model(kernel: str, model, weights, features) -> None:
    """Writes the golden of the decoder alone, for rows that `PerformerLM` cannot have."""
    rows = [[(1, 17), (1, 12)], [(1, 11), (1, 9), (1, 1)]]
    batch = batches.packed(rows, t5_torch.DIMENSIONS["vocab_size"], spare=2)
    t5_torch.set_segments(model, batch)
    set_positions(model, batch)
    t5_torch.silence(model)
    weights = t5_torch.language_model(weights)
    t5_torch.check_complete(model, weights, t5_torch.SILENT)
    batch = batches.decoder_only(batch)
    constants = {path: a for path, a in features.items() if path.startswith("decoder")}
    config = {"name": "performer", "size": "nano", "kernel": kernel, **t5_torch.DECODER_ONLY}
    config["max_target_length"] = LENGTHS["decoder"]
    if constants:
        config["num_features"] = FEATURES
    oracle = f"performer-pytorch 1.1.4, {t5_torch.VERSIONS}"
    scores = t5_torch.language_model_logits(model, batch)
    golden = t5_torch.golden(oracle, config, batch, weights, scores)
    dataclasses.replace(golden, constants=constants).save(f"performer-lm-{kernel}-packed")


if __name__ == "__main__":
    main()

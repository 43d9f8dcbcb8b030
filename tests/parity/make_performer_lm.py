"""Goldens of the Performer as a language model: performer-pytorch's PerformerLM, in both kernels.

Its embedding, positions, causal attention, residual layers and tied logits, with three parts of
T5: norms without mean and bias, ReLU, and the scale D^-1/2 of the logits. Biases are zero and not
trained. Features are those of `make_performer`, which has the recipe too; then, from the root of
the checkout, `python -m tests.parity.make_performer_lm`. PerformerLM knows neither padding nor
packing, but padding at the end does not reach a causal model's tokens; packed rows are compared in
the decoder of `make_performer`.
"""

import dataclasses

import numpy as np
import torch
from performer_pytorch import performer_pytorch
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from tests.parity import batches, t5_torch
from tests.parity.make_performer import FEATURES, LENGTHS, features
from tests.parity.t5_torch import Weight

DIMENSIONS, LENGTH = t5_torch.DECODER_ONLY, LENGTHS["decoder"]


class Attention(nn.Module):
    """Stands for PerformerLM's FastAttention; queries, keys and values are [B, H, L, K]."""

    def __init__(self, directions: torch.Tensor | None):
        """`directions` [M, K] of the softmax kernel, None for ReLU."""
        super().__init__()
        self.directions = directions

    def forward(self, q, k, v):
        """Causal attention."""
        q, k = features(q, k, self.directions)
        return performer_pytorch.causal_linear_attention_noncuda(q, k, v, chunk_size=1, eps=0.0)


def build(kernel: str):
    """The model and its random features by the zoo's names."""
    dim, width = DIMENSIONS["embed_dim"], DIMENSIONS["head_dim"]
    model = performer_pytorch.PerformerLM(
        num_tokens=DIMENSIONS["vocab_size"],
        max_seq_len=LENGTH,
        dim=dim,
        depth=DIMENSIONS["num_decoder_layers"],
        heads=DIMENSIONS["num_heads"],
        dim_head=width,
        causal=True,
        tie_embed=True,
        rotary_position_emb=False,
    ).eval()
    model.norm = T5LayerNorm(dim)
    torch.manual_seed(0)
    constants = {}
    for index, (mixer, dense) in enumerate(model.performer.net.layers):
        mixer.norm, dense.norm = T5LayerNorm(dim), T5LayerNorm(dim)
        hidden = dense.fn.fn
        hidden.act = nn.ReLU()
        hidden.w1 = nn.Linear(dim, DIMENSIONS["mlp_dim"])
        hidden.w2 = nn.Linear(DIMENSIONS["mlp_dim"], dim)
        directions = None
        if kernel == "softmax":
            directions = performer_pytorch.gaussian_orthogonal_random_matrix(FEATURES, width)
            path = f"decoder.blocks.{index}.self_attention.layer.directions"
            constants[path] = directions.numpy()
        mixer.fn.fast_attention = Attention(directions)
    t5_torch.randomise(model)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.data.zero_()
            parameter.requires_grad_(False)
        elif "to_q" in name:  # see `make_performer.build`
            parameter.data *= width**-0.5
    return model, constants


def parameters(model: nn.Module) -> dict[str, Weight]:
    """Every parameter by the zoo's path."""
    weights = {
        "embedding.table": Weight(model.token_emb.weight),
        "decoder.positions.table": Weight(model.pos_emb.emb.weight),
        "decoder.norm.scale": Weight(model.norm.weight),
    }
    for index, (mixer, dense) in enumerate(model.performer.net.layers):
        path, hidden = f"decoder.blocks.{index}", dense.fn.fn
        matrices = {
            "self_attention.layer.query": mixer.fn.to_q,
            "self_attention.layer.key": mixer.fn.to_k,
            "self_attention.layer.value": mixer.fn.to_v,
            "self_attention.layer.out": mixer.fn.to_out,
            "feed_forward.layer.wi": hidden.w1,
            "feed_forward.layer.wo": hidden.w2,
        }
        for name, layer in matrices.items():
            weights[f"{path}.{name}"] = Weight(layer.weight, np.transpose)
        weights[f"{path}.self_attention.norm.scale"] = Weight(mixer.norm.weight)
        weights[f"{path}.feed_forward.norm.scale"] = Weight(dense.norm.weight)
    return weights


def main() -> None:
    """Writes the goldens."""
    batch = batches.decoder_only(batches.padded((1, 1), (37, 18), DIMENSIONS["vocab_size"]))
    for kernel in ("relu", "softmax"):
        model, constants = build(kernel)
        weights = parameters(model)
        t5_torch.check_complete(model, weights, (".bias",))
        config = {"name": "performer", "size": "nano", "kernel": kernel, **DIMENSIONS}
        config |= {"max_target_length": LENGTH} | ({"num_features": FEATURES} if constants else {})
        scores = model(torch.tensor(batch["decoder_input_tokens"]))
        oracle = f"performer-pytorch 1.1.4, {t5_torch.VERSIONS}"
        golden = t5_torch.golden(
            oracle, config, batch, weights, scores * DIMENSIONS["embed_dim"] ** -0.5
        )
        dataclasses.replace(golden, constants=constants).save(f"performer-lm-{kernel}-padded")


if __name__ == "__main__":
    main()

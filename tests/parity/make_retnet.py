"""Goldens of RetNet: the retention of fla-core in Hugging Face's Llama, as a language model.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0` and `pip install --no-deps --target FOLDER fla-core==0.6.0`, then, from the
root of the checkout, `python -m tests.parity.make_retnet FOLDER`.

Llama's attention is replaced by a layer around `fla/ops/retention/naive.py`, which forms all pairs
of positions. The angles, feed-forward layers and norms are Llama's. A projection to twice the width
of a head is what fla's layer has, too.
"""

import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tests.parity import segments_torch, t5_torch
from tests.parity.segments_torch import DIMENSIONS

ORACLE = f"fla-core 0.6.0, {t5_torch.VERSIONS}"


class Recurrent(nn.Module):
    """A mixer with queries and keys, wide values and a gate, in place of Llama's attention."""

    def __init__(self, key_dim: int, value_dim: int):
        """Of heads with these widths."""
        super().__init__()
        dim, self.heads = DIMENSIONS["embed_dim"], DIMENSIONS["num_heads"]
        keys, values = self.heads * key_dim, self.heads * value_dim
        self.q, self.k = nn.Linear(dim, keys, bias=False), nn.Linear(dim, keys, bias=False)
        self.v, self.gate = nn.Linear(dim, values, bias=False), nn.Linear(dim, values, bias=False)
        self.norm = nn.RMSNorm(value_dim, eps=1e-5)
        self.out = nn.Linear(values, dim, bias=False)

    def mix(self, x, q, k, v, angles) -> torch.Tensor:
        """The heads [B, L, H, V], given heads [B, L, H, .] of queries, keys and values."""
        raise NotImplementedError

    def forward(self, hidden_states, position_embeddings, **unused):
        """Llama's interface."""
        shape = (*hidden_states.shape[:2], self.heads, -1)
        heads = [layer(hidden_states).view(shape) for layer in (self.q, self.k, self.v)]
        y = self.norm(self.mix(hidden_states, *heads, position_embeddings))
        gate = nn.functional.silu(self.gate(hidden_states))
        return self.out(y.reshape(gate.shape) * gate), None


class Retention(Recurrent):
    """The decays are fixed."""

    def mix(self, x, q, k, v, angles) -> torch.Tensor:
        """Turns queries and keys first."""
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
        q, k = apply_rotary_pos_emb(q, k, *angles)
        return segments_torch.naive("retention").naive_retention(q, k, v).transpose(1, 2)


def build(make_mixer) -> LlamaForCausalLM:
    """Llama with another mixer in every layer, and random weights."""
    model = segments_torch.llama()
    for layer in model.model.layers:
        layer.self_attn = make_mixer()
    t5_torch.randomise(model)
    return model


def mixer(layer: nn.Module) -> dict[str, t5_torch.Weight]:
    """The parameters that every such mixer has."""
    own = layer.self_attn
    return segments_torch.linear(
        query=own.q, key=own.k, value=own.v, gate=own.gate, out=own.out
    ) | {"norm.scale": t5_torch.Weight(own.norm.weight)}


def main() -> None:
    """Writes the goldens."""
    width = DIMENSIONS["head_dim"]
    model = build(lambda: Retention(width, 2 * width))
    segments_torch.save("retnet", ORACLE, model, segments_torch.parameters(model, mixer), {})


if __name__ == "__main__":
    main()

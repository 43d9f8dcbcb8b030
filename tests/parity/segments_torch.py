"""Language models in PyTorch that know nothing of packed rows, run on one segment after the other.

What they compute for each segment alone defines what a packed row must give.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

DIMENSIONS = {
    **t5_torch.DECODER_ONLY,
    "num_decoder_layers": 2,
    "embed_dim": 15,
    "num_heads": 3,
    "head_dim": 8,
}
# Longer than a chunk of either kernel, and no multiple of one.
PADDED = batches.decoder_only(batches.padded((1, 1), (70, 37), DIMENSIONS["vocab_size"]))
PACKED = batches.decoder_only(
    batches.packed(
        [[(1, 17), (1, 62), (1, 1)], [(1, 11), (1, 9)]], DIMENSIONS["vocab_size"], spare=3
    )
)


def logits(model: nn.Module, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """Logits [B, T, V] of every segment alone; zero at padding."""
    tokens, segments = batch["decoder_input_tokens"], batches.segments(batch, "decoder")
    rows = []
    for ids, numbers in zip(tokens, segments, strict=True):
        row = torch.zeros(len(ids), DIMENSIONS["vocab_size"])
        for number in np.unique(numbers[numbers > 0]):
            where = torch.tensor(numbers == number)
            scores = model(input_ids=torch.tensor(ids)[where][None]).logits[0]
            row = row.masked_scatter(where[:, None], scores)
        rows.append(row)
    return torch.stack(rows)


def llama() -> LlamaForCausalLM:
    """Hugging Face's Llama with these dimensions and the zoo's epsilon of the norms."""
    config = LlamaConfig(
        vocab_size=DIMENSIONS["vocab_size"],
        hidden_size=DIMENSIONS["embed_dim"],
        intermediate_size=DIMENSIONS["mlp_dim"],
        num_hidden_layers=DIMENSIONS["num_decoder_layers"],
        num_attention_heads=DIMENSIONS["num_heads"],
        head_dim=DIMENSIONS["head_dim"],
        rms_norm_eps=1e-6,
        attn_implementation="eager",
        use_cache=False,
    )
    return LlamaForCausalLM(config).eval()


def dense(layer: nn.Module) -> dict[str, Weight]:
    """The parameters of Llama's feed-forward layer."""
    own = layer.mlp
    return linear(wi_0=own.gate_proj, wi_1=own.up_proj, wo=own.down_proj)


def parameters(
    model: nn.Module,
    mixer: Callable[[nn.Module], dict[str, Weight]],
    feed_forward: Callable[[nn.Module], dict[str, Weight]] = dense,
) -> dict[str, Weight]:
    """Those of a model like Llama by the zoo's paths; two functions name those of each layer."""
    weights = {
        "embedding.table": Weight(model.model.embed_tokens.weight),
        "decoder.norm.scale": Weight(model.model.norm.weight),
        "head.table": Weight(model.lm_head.weight, np.transpose),
    }
    for index, layer in enumerate(model.model.layers):
        block = {
            "self_attention.norm.scale": Weight(layer.input_layernorm.weight),
            "feed_forward.norm.scale": Weight(layer.post_attention_layernorm.weight),
        }
        block |= {f"self_attention.layer.{name}": w for name, w in mixer(layer).items()}
        block |= {f"feed_forward.layer.{name}": w for name, w in feed_forward(layer).items()}
        weights |= {f"decoder.blocks.{index}.{path}": weight for path, weight in block.items()}
    return weights


def attention(layer: nn.Module) -> dict[str, Weight]:
    """The parameters of Llama's attention."""
    own = layer.self_attn
    return linear(query=own.q_proj, key=own.k_proj, value=own.v_proj, out=own.o_proj)


def linear(**layers: nn.Linear) -> dict[str, Weight]:
    """The weights of linear layers as matrices [in, out]."""
    return {name: Weight(layer.weight, np.transpose) for name, layer in layers.items()}


def save(name: str, oracle: str, model: nn.Module, weights, options: dict, cases=None) -> None:
    """Writes a golden `name-lm-case` for each batch."""
    t5_torch.check_complete(model, weights)
    own = sum(parameter.numel() for parameter in model.parameters())
    assert own == sum(weight.value().size for weight in weights.values()), own
    config = {"name": name, "size": "nano", **DIMENSIONS, **options}
    for case, batch in (cases or {"padded": PADDED, "packed": PACKED}).items():
        made = t5_torch.golden(oracle, config, batch, weights, logits(model, batch))
        made.save(f"{name}-lm-{case}")


def naive(operation: str) -> ModuleType:
    """The plain form of an operation of fla-core, from the folder that the first argument names.

    The package itself needs kernels for GPUs, so it is never imported.
    """
    path = Path(sys.argv[1]) / "fla" / "ops" / operation / "naive.py"
    spec = importlib.util.spec_from_file_location(f"naive_{operation}", path)
    assert spec is not None and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""Goldens of mixtures of experts: Hugging Face's Mixtral, OLMoE and DeepSeek-V3.

Recipe, in an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from
the root of the checkout, `python -m tests.parity.make_moe`.

MixtralForCausalLM as it is, and with its feed-forward layers replaced by those of OLMoE, whose
weights are not normalised, and of DeepSeek-V3, with sigmoid scores, a shared expert and biases of
the choice. Hugging Face does not train these. Their gradient is counted here from its choices: the
load of an expert times the number of experts, less all loads (Wang et al., 2024, arXiv 2408.15664).
Its balancing loss is that of all layers together, so the golden that has it is of one layer and of
one row without padding.
"""

import dataclasses

import numpy as np
import torch
from torch import nn
from transformers import DeepseekV3Config, MixtralConfig, MixtralForCausalLM, OlmoeConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

from tests.parity import batches, segments_torch, t5_torch
from tests.parity.segments_torch import DIMENSIONS, PACKED, PADDED
from tests.parity.t5_torch import Weight

EXPERTS, TOP, BALANCE = 5, 2, 0.3
ONE_ROW = batches.decoder_only(batches.padded((1,), (40,), DIMENSIONS["vocab_size"]))


def build(layers: int = DIMENSIONS["num_decoder_layers"]) -> MixtralForCausalLM:
    """Mixtral."""
    config = MixtralConfig(
        vocab_size=DIMENSIONS["vocab_size"],
        hidden_size=DIMENSIONS["embed_dim"],
        intermediate_size=DIMENSIONS["mlp_dim"],
        num_hidden_layers=layers,
        num_attention_heads=DIMENSIONS["num_heads"],
        num_key_value_heads=DIMENSIONS["num_heads"],
        head_dim=DIMENSIONS["head_dim"],
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        num_local_experts=EXPERTS,
        num_experts_per_tok=TOP,
        router_aux_loss_coef=BALANCE,
        sliding_window=None,
        attn_implementation="eager",
        experts_implementation="eager",
        use_cache=False,
    )
    return MixtralForCausalLM(config).eval()


@dataclasses.dataclass(frozen=True)
class Bias(Weight):
    """The biases of the choice of a router, which has counted its choices."""

    gate: nn.Module | None = None

    def gradient(self) -> np.ndarray:
        """What each load has over the mean, times the number of experts."""
        assert self.gate is not None
        loads = self.gate.loads.numpy()
        return np.float64(len(loads) * loads - loads.sum())


def olmoe() -> OlmoeSparseMoeBlock:
    """OLMoE's feed-forward layer."""
    config = OlmoeConfig(
        hidden_size=DIMENSIONS["embed_dim"],
        intermediate_size=DIMENSIONS["mlp_dim"],
        num_attention_heads=DIMENSIONS["num_heads"],
        num_experts=EXPERTS,
        num_experts_per_tok=TOP,
        norm_topk_prob=False,
    )
    return OlmoeSparseMoeBlock(config)


def deepseek() -> DeepseekV3MoE:
    """DeepSeek-V3's feed-forward layer, with one group of experts."""
    config = DeepseekV3Config(
        hidden_size=DIMENSIONS["embed_dim"],
        moe_intermediate_size=DIMENSIONS["mlp_dim"],
        n_routed_experts=EXPERTS,
        num_experts_per_tok=TOP,
        n_shared_experts=2,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=2.5,
        norm_topk_prob=True,
    )
    block = DeepseekV3MoE(config)
    # A parameter, so that it is drawn like the others.
    del block.gate.e_score_correction_bias
    block.gate.e_score_correction_bias = nn.Parameter(torch.zeros(EXPERTS))
    block.gate.loads = torch.zeros(EXPERTS, dtype=torch.long)

    def count(gate, _, outputs):
        gate.loads += torch.bincount(outputs[2].flatten(), minlength=EXPERTS)

    block.gate.register_forward_hook(count)
    return block


def mixture(layer: nn.Module) -> dict[str, Weight]:
    """The parameters of the experts; gates come first in the joint matrix."""
    own, width = layer.mlp, DIMENSIONS["mlp_dim"]
    both = own.experts.gate_up_proj
    weights = {
        "router": Weight(own.gate.weight, np.transpose),
        "wi_0": Weight(both, lambda w: w[:, :width].swapaxes(1, 2)),
        "wi_1": Weight(both, lambda w: w[:, width:].swapaxes(1, 2)),
        "wo": Weight(own.experts.down_proj, lambda w: w.swapaxes(1, 2)),
    }
    if hasattr(own, "shared_experts"):
        weights["bias"] = Bias(own.gate.e_score_correction_bias, gate=own.gate)
        shared = own.shared_experts
        parts = {"wi_0": shared.gate_proj, "wi_1": shared.up_proj, "wo": shared.down_proj}
        for name, part in parts.items():
            weights[f"shared.{name}"] = Weight(part.weight, np.transpose)
    return weights


def in_files(model: MixtralForCausalLM) -> dict[str, Weight]:
    """Mixtral's mixtures under the names that files have: every expert by itself."""
    named, width = {}, DIMENSIONS["mlp_dim"]
    for index, layer in enumerate(model.model.layers):
        path, own = f"model.layers.{index}.block_sparse_moe", layer.mlp
        named[f"{path}.gate.weight"] = Weight(own.gate.weight)
        for expert in range(EXPERTS):
            both, down = own.experts.gate_up_proj, own.experts.down_proj
            named |= {
                f"{path}.experts.{expert}.{name}.weight": Weight(tensor, take)
                for name, tensor, take in (
                    ("w1", both, lambda a, expert=expert: a[expert, :width]),
                    ("w3", both, lambda a, expert=expert: a[expert, width:]),
                    ("w2", down, lambda a, expert=expert: a[expert]),
                )
            }
    return named


def main() -> None:
    """Writes the goldens."""
    options = {"num_experts": EXPERTS, "top_k": TOP, "balance_weight": 0.0}
    third = {"scores": "sigmoid", "num_shared": 2, "scale": 2.5, "balance_bias": True}
    for case, block, batch, own in (
        ("mixtral", None, PADDED, {}),
        ("olmoe", olmoe, PACKED, {"normalised": False}),
        ("deepseek", deepseek, PACKED, third),
    ):
        model = build()
        for layer in model.model.layers:
            layer.mlp = layer.mlp if block is None else block()
        t5_torch.randomise(model)
        if block is None:
            config = {"name": "moe", "size": "nano", **DIMENSIONS, **options}
            weights = t5_torch.mapped(model, config, in_files(model))
        else:
            weights = segments_torch.parameters(model, segments_torch.attention, mixture)
        segments_torch.save(
            "moe", t5_torch.VERSIONS, model, weights, {**options, **own}, {case: batch}
        )
    model = build(layers=1)
    t5_torch.randomise(model)
    config = {"name": "moe", "size": "nano", **DIMENSIONS, **options, "num_decoder_layers": 1}
    weights = t5_torch.mapped(model, config, in_files(model))
    ids = t5_torch.torch.tensor(ONE_ROW["decoder_input_tokens"])
    out = model(input_ids=ids, output_router_logits=True)
    config["balance_weight"] = BALANCE
    balance = {"load_balance": BALANCE * out.aux_loss}
    made = t5_torch.golden(t5_torch.VERSIONS, config, ONE_ROW, weights, out.logits, balance)
    made.save("moe-lm-balance")


if __name__ == "__main__":
    main()

"""The map of Gated DeltaNet: Qwen3NextForCausalLM with linear attention in all layers, no experts.

Their norms multiply by 1 + w, except that of the heads, as ours do with `centred_norms`. Their
projections are ordered by head: query, key, value, gate; and rate, decay.
"""

from collections.abc import Iterator
from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.llama_like import LlamaLikeMap
from arch_zoo.exchange.table import TAPS, TRANSPOSED, Row, joined_by_head, row
from arch_zoo.registry import ConfigError

_SAME = {"decay.bias": "dt_bias", "decay.log_rate": "A_log", "norm.scale": "norm.weight"}
_LINEAR = "linear_attention"


class GatedDeltaNetMap(LlamaLikeMap):
    """The gated delta rule in every layer."""

    name, theirs, model_type = "gated_deltanet", "Qwen3NextForCausalLM", "qwen3_next"

    def refusal(self, cfg: ModelConfig) -> str:
        """Other delta rules, and another epsilon of the heads' norms."""
        options = cfg.architecture
        if not options.decay or options.negative:
            return f"{self.theirs} has no decay={options.decay}, negative={options.negative}"
        if options.norm_epsilon != cfg.stream_epsilon:
            return f"{self.theirs} has one epsilon, not norm_epsilon and stream_epsilon"
        return super().refusal(cfg)

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Dimensions and the kinds of layers."""
        layers, key = cfg.num_decoder_layers, _key_dim(cfg)
        return {
            **super().settings(cfg),
            "layer_types": [_LINEAR] * layers,
            "mlp_only_layers": list(range(layers)),
            "linear_num_key_heads": cfg.num_heads,
            "linear_num_value_heads": cfg.num_heads,
            "linear_key_head_dim": key,
            "linear_value_head_dim": 2 * key,
            "linear_conv_kernel_dim": 4,
        }

    def config(self, settings: ForeignConfig) -> ModelConfig:
        """Linear attention in every layer, none of which has experts."""
        layers = settings.whole("num_hidden_layers")
        kinds, dense = settings.get("layer_types", []), settings.get("mlp_only_layers", [])
        if kinds != [_LINEAR] * layers:
            raise ConfigError(
                f"config.json: layer_types = {kinds}: the zoo's model has {_LINEAR} in all layers"
            )
        if sorted(dense) != list(range(layers)):
            raise ConfigError(
                f"config.json: mlp_only_layers = {dense}: the zoo's model has experts in no layer"
            )
        heads, key = settings.whole("linear_num_key_heads"), settings.whole("linear_key_head_dim")
        settings.require(
            linear_num_value_heads=heads, linear_value_head_dim=2 * key, linear_conv_kernel_dim=4
        )
        if key % 3:
            raise ConfigError(
                f"config.json: linear_key_head_dim = {key}: must be three quarters of the zoo's "
                "head_dim"
            )
        linear = {"num_attention_heads": heads, "head_dim": key // 3 * 4}
        return super().config(ForeignConfig({**settings.values, **linear}, settings.tensors))

    def options(self, settings: ForeignConfig) -> dict[str, Any]:
        """The epsilon of the heads' norms, and the others' form."""
        epsilon = float(settings.number("rms_norm_eps", 1e-6))
        return {"norm_epsilon": epsilon, "centred_norms": True}

    def norm_offset(self, cfg: ModelConfig) -> float:
        """Theirs are distances from 1."""
        return 0.0 if cfg.architecture.centred_norms else 1.0

    def mixer(self, cfg: ModelConfig, ours: str, theirs: str) -> Iterator[Row]:
        """Linear attention."""
        heads, key, layer = cfg.num_heads, _key_dim(cfg), f"{theirs}.linear_attn"
        parts = {"query": key, "key": key, "value": 2 * key, "gate": 2 * key}
        narrow = {"rate": 1, "decay.kernel": 1}
        for their, own in (("in_proj_qkvz", parts), ("in_proj_ba", narrow)):
            yield Row(
                tuple(f"{ours}.{part}" for part in own),
                (f"{layer}.{their}.weight",),
                joined_by_head(heads, *own.values()),
            )
        yield row(f"{ours}.taps", f"{layer}.conv1d.weight", TAPS)
        yield row(f"{ours}.out", f"{layer}.out_proj.weight", TRANSPOSED)
        for own, their in _SAME.items():
            yield row(f"{ours}.{own}", f"{layer}.{their}")


def _key_dim(cfg: ModelConfig) -> int:
    return 3 * cfg.head_dim // 4

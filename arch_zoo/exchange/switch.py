"""The map of the Switch Transformer: SwitchTransformersForConditionalGeneration.

Their evaluation drops tokens beyond `expert_capacity`, ours drops none, so outputs agree only where
no expert is full. An exported model gets room for all.
"""

from collections.abc import Iterator
from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.t5 import T5Map
from arch_zoo.exchange.table import TRANSPOSED, Row, row, stacked
from arch_zoo.registry import ConfigError


class SwitchMap(T5Map):
    """One expert of several for every token, in every second layer."""

    name = "switch"
    theirs, model_type = "SwitchTransformersForConditionalGeneration", "switch_transformers"
    dense = "mlp"

    def refusal(self, cfg: ModelConfig) -> str:
        """Their sparse layers are where ours are only if these are every layer or every second."""
        every = cfg.architecture.every
        layers = f"{self.theirs} has its sparse layers elsewhere for every={every}"
        return super().refusal(cfg) or (layers if every > 2 else "")

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Those of T5, and the experts."""
        options = cfg.architecture
        return {
            **super().settings(cfg),
            "num_experts": options.num_experts,
            "num_sparse_encoder_layers": cfg.num_encoder_layers // options.every,
            "num_sparse_decoder_layers": cfg.num_decoder_layers // options.every,
            "encoder_sparse_step": options.every,
            "decoder_sparse_step": options.every,
            "expert_capacity": 2**20,
            "router_jitter_noise": options.jitter,
            "router_aux_loss_coef": options.balance_weight,
        }

    def options(self, settings: ForeignConfig) -> dict[str, Any]:
        """The experts; both stacks must have them at the same depths."""
        settings.require(router_bias=False, tie_word_embeddings=True, dense_act_fn="relu")
        every = settings.whole("encoder_sparse_step", 2)
        other = settings.whole("decoder_sparse_step", every)
        if other != every or every not in (1, 2):
            raise ConfigError(
                f"config.json: encoder_sparse_step = {every} and decoder_sparse_step = {other}: "
                "the zoo's model has 1 or 2 in both"
            )
        return {
            "num_experts": settings.whole("num_experts"),
            "every": every,
            "jitter": float(settings.number("router_jitter_noise", 0.01)),
            "balance_weight": float(settings.number("router_aux_loss_coef", 0.001)),
        }

    def feed_forward(self, cfg: ModelConfig, depth: int, ours: str, theirs: str) -> Iterator[Row]:
        """A dense layer, or a router and experts."""
        every, experts = cfg.architecture.every, range(cfg.architecture.num_experts)
        if depth % every != every - 1:
            yield from super().feed_forward(cfg, depth, ours, theirs)
            return
        yield row(f"{ours}.router", f"{theirs}.router.classifier.weight", TRANSPOSED)
        for kernel in self.kernels:
            names = tuple(f"{theirs}.experts.expert_{expert}.{kernel}.weight" for expert in experts)
            yield Row((f"{ours}.{kernel}",), names, stacked())

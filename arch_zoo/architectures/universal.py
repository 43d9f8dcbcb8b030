"""Universal Transformer (Dehghani et al., 2019, arXiv 1807.03819): one block applied again and again.

Overrides `schedule`: either stack has one block, applied as often as the vanilla stack has layers; and the stack's
step: a learned vector for each step is added to the state before the block runs. Encoder and decoder have a block each.

Deviations. Positions are T5's relative biases, shared by the steps, instead of sinusoids added at each step (the
original study's code never applied its position signal). Norms are RMSNorm.
"""

import dataclasses

import jax

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.context import Context
from arch_zoo.layers.stack import Block, Stack
from arch_zoo.registry import register


class RecurrentStack(Stack):
    """A stack that tells its block which step it is at."""

    def __init__(self, cfg: ModelConfig, blocks: list[Block], schedule: tuple[int, ...], positions, key: jax.Array):
        """Draws the step signal [N, D]: unit normal, as the embedding."""
        super().__init__(cfg, blocks, schedule, positions)
        self.step_signal = parameters.normal(key, (len(schedule), cfg.embed_dim), ("steps", "embed"), 1.0)

    def step(self, block: Block, depth: int | jax.Array, x_BLD: jax.Array, ctx: Context, cache=None):
        """Adds the signal of this step, then runs the block."""
        return super().step(block, depth, x_BLD + self.step_signal[depth].astype(x_BLD.dtype), ctx, cache)


@register("universal")
@dataclasses.dataclass(frozen=True)
class Universal(Architecture):
    """One recurrent block in either stack."""

    title = "Universal Transformer"
    paper = "Dehghani et al., 2019, arXiv 1807.03819"

    def schedule(self, cfg: ModelConfig, num_layers: int) -> tuple[int, ...]:
        """Block 0 at every step."""
        return (0,) * num_layers

    def encoder(self, cfg: ModelConfig, key: jax.Array) -> RecurrentStack:
        """A recurrent encoder."""
        signal_key, key = jax.random.split(key)
        parts = self.stack_parts(cfg, cfg.num_encoder_layers, self.encoder_layers, key)
        return RecurrentStack(cfg, *parts, signal_key)

    def decoder(self, cfg: ModelConfig, key: jax.Array) -> RecurrentStack:
        """A recurrent decoder."""
        signal_key, key = jax.random.split(key)
        parts = self.stack_parts(cfg, cfg.num_decoder_layers, self.decoder_layers, key)
        return RecurrentStack(cfg, *parts, signal_key)

"""Universal Transformer (Dehghani et al., 2019, arXiv 1807.03819).

One block that is applied repeatedly. Overrides `schedule`: each stack has one block, which is
applied as often as the vanilla stack has layers; encoder and decoder have separate blocks.
Overrides `stack`: before each step a learned vector for that step is added to the state.

With adaptive computation time (Graves, 2016, arXiv 1603.08983; option `act`) each position predicts
before each step the probability that it halts. It halts when these probabilities sum to almost one.
The output of the stack is the mean of the states weighted by them (`accumulated`). The form `basic`
is the default of Tensor2Tensor and Mesh TensorFlow: each step also multiplies the output so far by
one minus its weight, so that the weights do not sum to one. A loss keeps the number of steps low.

Deviations. Positions are T5's relative biases, shared by the steps, instead of sinusoids added at
each step; the original study's code base never applied its position signal. Norms are RMSNorm. As
in that code base and unlike the paper, the state of a halted position still changes for positions
that attend to it, and only its output is final. The last step takes the remaining probability,
which the sources lose. The loss is a mean over tokens without padding. Every step is computed for
every position, so halting saves no time, and FLOPs count all steps. There are at most as many steps
as without halting, where Tensor2Tensor allows twice as many, so that a size never costs more. A
size has as many steps as the vanilla model has layers. The variant `narang` is that of the sibling
study (Narang et al., 2021, arXiv 2102.11972), which has 24 steps at base, twice as many.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.context import Aux, Context, observe
from arch_zoo.layers.parameters import Dense
from arch_zoo.layers.stack import Block, Stack
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side

FORMS = ("none", "accumulated", "basic")


class RecurrentStack(Stack):
    """A stack that adds a learned vector for each step to the state."""

    def __init__(self, cfg: ModelConfig, parts: tuple, key: jax.Array):
        """Takes `Architecture.stack_parts` and draws a unit normal step signal [N, D]."""
        super().__init__(cfg, *parts)
        self.step_signal = parameters.normal(
            key, (len(self.schedule), cfg.embed_dim), ("steps", "embed"), 1.0
        )

    def step(
        self, block: Block, depth: int | jax.Array, x_BLD: jax.Array, ctx: Context, cache=None
    ):
        """Adds the signal of this step, then runs the block."""
        return super().step(
            block, depth, x_BLD + self.step_signal[depth].astype(x_BLD.dtype), ctx, cache
        )


class Halting(NamedTuple):
    """What adaptive computation carries from step to step.

    All but the states and outputs are in float32.

    Attributes:
      state_BLD: the input of the next step.
      output_BLD: the output so far.
      halted_BL1: the sum of halting probabilities; exactly 1 once a position has halted.
      remainder_BL1: what was left of 1 at the step at which a position halted.
      steps_BL1: the number of steps taken.
    """

    state_BLD: jax.Array
    output_BLD: jax.Array
    halted_BL1: jax.Array
    remainder_BL1: jax.Array
    steps_BL1: jax.Array


class AdaptiveStack(RecurrentStack):
    """A recurrent stack in which each position decides when it halts."""

    def __init__(self, cfg: ModelConfig, parts: tuple, architecture: "Universal", key: jax.Array):
        """Draws the layer that predicts halting.

        Its bias starts at one, so that positions halt early at first.
        """
        signal_key, halt_key = jax.random.split(key)
        super().__init__(cfg, parts, signal_key)
        self.halt = Dense(
            parameters.glorot_uniform(halt_key, (cfg.embed_dim, 1), ("embed", "halt")), bias=True
        )
        self.halt.bias = parameters.constant(1.0, (1,), ("halt",))
        self.form, self.epsilon = architecture.act, architecture.act_epsilon
        self.loss_weight = architecture.act_loss_weight

    def walk(self, x_BLD: Any, ctx: Context, caches=None):
        """Runs all steps; the loss is the mean over tokens of step count plus remainder."""
        zeros_BL1 = jnp.zeros((*x_BLD.shape[:2], 1))
        start = Halting(x_BLD, jnp.zeros_like(x_BLD), zeros_BL1, zeros_BL1, zeros_BL1)
        end, ctx, caches, aux = super().walk(start, ctx, caches)
        real_BL1 = ctx.real_BL1.astype(jnp.float32)
        steps, remainder = (
            jnp.sum(value_BL1 * real_BL1) / jnp.maximum(jnp.sum(real_BL1), 1.0)
            for value_BL1 in (end.steps_BL1, end.remainder_BL1)
        )
        losses = {"ponder": self.loss_weight * (steps + remainder)}
        return end.output_BLD, ctx, caches, aux.merge(Aux(losses, {"ponder_steps": observe(steps)}))

    def step(self, block: Block, depth: int | jax.Array, carry: Halting, ctx: Context, cache=None):
        """Decides which positions halt, runs the block, adds the weighted state to the output."""
        x_BLD = carry.state_BLD + self.step_signal[depth].astype(carry.state_BLD.dtype)
        halting, weight_BL1 = self.advance(carry, x_BLD, depth)
        state_BLD, ctx, cache, aux = Stack.step(self, block, depth, x_BLD, ctx, cache)
        weight_BL1 = weight_BL1.astype(state_BLD.dtype)
        kept = 1 - weight_BL1 if self.form == "basic" else 1
        output_BLD = carry.output_BLD * kept + state_BLD * weight_BL1
        return halting._replace(state_BLD=state_BLD, output_BLD=output_BLD), ctx, cache, aux

    def advance(
        self, carry: Halting, x_BLD: jax.Array, depth: int | jax.Array
    ) -> tuple[Halting, jax.Array]:
        """The halting state after the step with input `x`, and its result's weight [B, L, 1]."""
        p_BL1 = jax.nn.sigmoid(self.halt(x_BLD.astype(jnp.float32)))
        running = carry.halted_BL1 < 1.0
        last = depth == len(self.schedule) - 1
        halts = running & ((carry.halted_BL1 + p_BL1 > 1.0 - self.epsilon) | last)
        goes_on = running & ~halts
        weight_BL1 = jnp.where(goes_on, p_BL1, jnp.where(halts, 1.0 - carry.halted_BL1, 0.0))
        return carry._replace(
            halted_BL1=jnp.where(goes_on, carry.halted_BL1 + p_BL1, 1.0),
            remainder_BL1=jnp.where(halts, weight_BL1, carry.remainder_BL1),
            steps_BL1=carry.steps_BL1 + running,
        ), weight_BL1


@register("universal")
@dataclasses.dataclass(frozen=True)
class Universal(Architecture):
    """One recurrent block in either stack.

    Attributes:
      num_steps: the number of steps, which adaptive computation may not exceed; 0 for as many as
        the size has layers.
      act: the form of adaptive computation time: `none`, `accumulated` or `basic`.
      act_epsilon: a position halts once its probabilities sum to more than one minus this.
      act_loss_weight: weight of the mean number of steps in the training loss.
    """

    title = "Universal Transformer"
    paper = "Dehghani et al., 2019, arXiv 1807.03819"
    variants: ClassVar = {"narang": {"num_steps": 24}}
    num_steps: int = 0
    act: str = "none"
    act_epsilon: float = 0.01
    act_loss_weight: float = 0.01

    def check(self, cfg: ModelConfig) -> None:
        """Refuses an unknown form and numbers outside their range."""
        if self.act not in FORMS:
            raise ConfigError(f"universal: act={self.act!r}: allowed are {', '.join(FORMS)}")
        if self.num_steps < 0:
            raise ConfigError(
                f"universal: num_steps={self.num_steps}: must be 0 (as the size) or positive"
            )
        if not 0 < self.act_epsilon < 1:
            raise ConfigError(f"universal: act_epsilon={self.act_epsilon}: must be between 0 and 1")
        if self.act_loss_weight < 0:
            raise ConfigError(
                f"universal: act_loss_weight={self.act_loss_weight}: must not be negative"
            )

    def schedule(self, cfg: ModelConfig, side: Side) -> tuple[int, ...]:
        """Block 0 at every step."""
        return (0,) * (self.num_steps or cfg.num_layers(side))

    def stack(self, cfg: ModelConfig, side: Side, key: jax.Array) -> RecurrentStack:
        """A recurrent stack, with adaptive computation if `act` is set."""
        stack_key, key = jax.random.split(key)
        parts = self.stack_parts(cfg, side, key)
        if self.act == "none":
            return RecurrentStack(cfg, parts, stack_key)
        return AdaptiveStack(cfg, parts, self, stack_key)

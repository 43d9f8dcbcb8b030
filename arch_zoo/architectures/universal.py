"""Universal Transformer (Dehghani et al., 2019, arXiv 1807.03819): one block applied again and again.

Overrides `schedule`: either stack has one block, applied as often as the vanilla stack has layers;
and the stack's step: a learned vector for each step is added to the state before the block runs.
Encoder and decoder have a block each.

With adaptive computation time (Graves, 2016, arXiv 1603.08983; option `act`) a position decides,
before each step, with which probability it halts; it halts when these sum to almost one, and what
leaves the stack is the mean of its states weighted by them, `accumulated`. The form `basic` is the
one that Tensor2Tensor and Mesh TensorFlow start from, where each step also shrinks what was there
by one minus its weight, so that the weights do not sum to one. A loss keeps the number of steps
low.

Deviations. Positions are T5's relative biases, shared by the steps, instead of sinusoids added at
each step (the original study's code base never applied its position signal). Norms are RMSNorm. As
in that code and unlike the paper, the state of a halted position goes on changing for those that
look at it; only its output stands. The last step takes what probability remains, which in the
sources is lost, and the loss is a mean over tokens that are no padding. Every step is computed for
every position, so halting saves no time, and FLOPs count all steps. At most as many steps are taken
as without halting, where Tensor2Tensor allows twice as many: a size costs the same at most. A size
means as many steps as the vanilla model has layers; the variant `narang` is the sibling study's
(Narang et al., 2021, arXiv 2102.11972), which takes 24 at base, twice as many.
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
    """A stack that tells its block which step it is at."""

    def __init__(self, cfg: ModelConfig, parts: tuple, key: jax.Array):
        """Takes `Architecture.stack_parts` and draws the step signal [N, D]: unit normal, as the embedding."""
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
    """What adaptive computation carries from step to step; all but the vectors in float32.

    Attributes:
      state_BLD: the input of the next step.
      output_BLD: what leaves the stack, so far.
      halted_BL1: the probability of having halted; exactly 1 once a position has.
      remainder_BL1: what was left of 1 at the step that halted.
      steps_BL1: how many steps were taken.
    """

    state_BLD: jax.Array
    output_BLD: jax.Array
    halted_BL1: jax.Array
    remainder_BL1: jax.Array
    steps_BL1: jax.Array


class AdaptiveStack(RecurrentStack):
    """A recurrent stack whose positions halt on their own."""

    def __init__(self, cfg: ModelConfig, parts: tuple, architecture: "Universal", key: jax.Array):
        """Draws the layer that predicts halting; its bias starts at one, so positions halt early at first."""
        signal_key, halt_key = jax.random.split(key)
        super().__init__(cfg, parts, signal_key)
        self.halt = Dense(
            parameters.glorot_uniform(halt_key, (cfg.embed_dim, 1), ("embed", "halt")), bias=True
        )
        self.halt.bias = parameters.constant(1.0, (1,), ("halt",))
        self.form, self.epsilon = architecture.act, architecture.act_epsilon
        self.loss_weight = architecture.act_loss_weight

    def walk(self, x_BLD: Any, ctx: Context, caches=None):
        """Carries the halting along; the loss is the mean number of steps plus remainder, of the tokens."""
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
        """Decides who halts, runs the block, and adds the state to the output with its weight."""
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
        """The halting after the step whose input is `x`, and the weight [B, L, 1] of that step's state."""
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
      num_steps: how often it is applied, with adaptive computation at most; 0 is as often as the
        size has layers.
      act: adaptive computation time: none, accumulated, basic.
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
        """A recurrent stack, with halting if `act` asks for it."""
        stack_key, key = jax.random.split(key)
        parts = self.stack_parts(cfg, side, key)
        if self.act == "none":
            return RecurrentStack(cfg, parts, stack_key)
        return AdaptiveStack(cfg, parts, self, stack_key)

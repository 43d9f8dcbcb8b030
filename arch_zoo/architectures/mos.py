"""Mixture of softmaxes (Yang et al., 2018, arXiv 1711.03953).

Log-probabilities of higher rank than one softmax has. Overrides `head`: the probability of a token
is a mixture, `sum_k pi_k softmax(c_k E^T)`, whose weights `pi` and context vectors `c_k = tanh(x
C_k)` depend on the decoder's output x; the embedding E stays tied. Its logits are logarithms of
probabilities, so the log-normaliser is zero and the z-loss has no effect.

The K components are computed one after the other, and recomputed in the backward pass except for
their log-normalisers. So only one set of logits [B, T, V] is held at a time.

Deviations. The form is that of Mesh TensorFlow, which the original study used: no biases, no
dropout on the contexts, and everything drawn from N(0, 1). There the tanh bounds the contexts but
nothing scales them. A component's logits then start with a standard deviation of about 0.6 sqrt(D),
and the loss starts far above ln V. `scale_context` multiplies the contexts by D^-1/2. Both are
named variants: `unscaled`, the default, is the source's; `scaled` is what the CPU study trains
(`cpu_options`). With K = 15 the base size has the parameters that Narang et al. (2021) report.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.embedding import Embedding
from arch_zoo.layers.head import LOG_Z, cross_entropy
from arch_zoo.registry import ConfigError, register


class MixtureHead(nnx.Module):
    """K softmaxes over the tied embedding, and the weights that mix them.

    All sums are computed in log space.
    """

    def __init__(self, cfg: ModelConfig, num_components: int, context_scale: float, key: jax.Array):
        """Draws the mixture's weights [K, D] and the contexts' projections [K, D, D]."""
        weights_key, contexts_key = jax.random.split(key)
        shape = (num_components, dim := cfg.embed_dim)
        # Of the scale D^-1/2, the part that the parametrisation's base does not have is in them.
        stddev = cfg.width_ratio**-0.5
        self.weights = parameters.normal(
            weights_key, shape, ("component", "embed"), stddev, fan_in=dim
        )
        axes = ("component", "embed", "embed_out")
        self.contexts = parameters.normal(contexts_key, (*shape, dim), axes, stddev)
        self.scale = (dim / cfg.width_ratio) ** -0.5
        self.context_scale = context_scale

    def logits(self, x_BTD: jax.Array, embedding: Embedding) -> jax.Array:
        """Log-probabilities [B, T, V] in float32."""

        def log_probs(logits_BTV):
            return jax.nn.log_softmax(logits_BTV, axis=-1)

        start = jnp.full((*x_BTD.shape[:2], embedding.table.shape[0]), -jnp.inf)
        return self._mix(x_BTD, embedding, log_probs, start)

    def matrix(self, embedding: Embedding, embed_dim: int) -> jax.Array:
        """The matrix [D, V] that all components share, in float32."""
        return embedding.attend(jnp.eye(embed_dim)[None])[0]

    def nll(
        self, x_BTD: jax.Array, targets_BT: jax.Array, embedding: Embedding
    ) -> tuple[jax.Array, jax.Array]:
        """Negative log-likelihood of targets in nats, log-normaliser (zero), [B, T], float32."""

        def log_prob(logits_BTV):
            return -cross_entropy(logits_BTV, targets_BT)[0][..., None]

        nll_BT = -self._mix(x_BTD, embedding, log_prob, jnp.full((*targets_BT.shape, 1), -jnp.inf))[
            ..., 0
        ]
        return nll_BT, jnp.zeros_like(nll_BT)

    def _mix(self, x_BTD, embedding, component, start):
        """The log of sum_k pi_k exp(component(logits_k)), added to `start` one by one."""
        x_BTD = x_BTD * self.scale
        scores_BTK = parameters.project(x_BTD, self.weights.T, jnp.float32)
        log_pi_KBT1 = jnp.moveaxis(jax.nn.log_softmax(scores_BTK, axis=-1), -1, 0)[..., None]

        @functools.partial(
            jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(LOG_Z)
        )
        def add(total, xs):
            projection_DD, log_pi_BT1 = xs
            context_BTD = jnp.tanh(parameters.project(x_BTD, projection_DD)) * self.context_scale
            return jnp.logaddexp(total, log_pi_BT1 + component(embedding.attend(context_BTD))), None

        return jax.lax.scan(add, start, (self.contexts[...], log_pi_KBT1))[0]


@register("mos")
@dataclasses.dataclass(frozen=True)
class MixtureOfSoftmaxes(Architecture):
    """A mixture of softmaxes over the vocabulary.

    Attributes:
      num_components: K, the number of softmaxes.
      scale_context: multiply the contexts by D^-1/2, so that the first losses are those of a single
        softmax.
    """

    title = "Mixture of softmaxes"
    paper = "Yang et al., 2018, arXiv 1711.03953"
    variants: ClassVar = {"unscaled": {"scale_context": False}, "scaled": {"scale_context": True}}
    cpu_options: ClassVar = variants["scaled"]  # else the first loss is too high for so few steps
    num_components: int = 15
    scale_context: bool = False

    @property
    def tied_logits(self) -> bool:
        """The components' logits are, the mixture's are not."""
        return False

    def check(self, cfg: ModelConfig) -> None:
        """Refuses a mixture without components."""
        if self.num_components < 1:
            raise ConfigError(f"mos: num_components={self.num_components}: must be at least 1")

    def head(self, cfg: ModelConfig, key: jax.Array) -> MixtureHead:
        """A mixture in place of one softmax."""
        scale = (cfg.embed_dim / cfg.width_ratio) ** -0.5 if self.scale_context else 1.0
        context_scale = scale / cfg.width_ratio
        return MixtureHead(cfg, self.num_components, context_scale, key)

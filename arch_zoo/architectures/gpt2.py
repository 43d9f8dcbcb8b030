"""GPT-2 (Radford et al., 2019, Language Models are Unsupervised Multitask Learners).

The Transformer most language models were compared with before Llama. Overrides `norm`: layer norm,
with means and biases. Overrides `mixer` and `cross_attention`: logits are scaled by K^-1/2, and
projections have biases. Overrides `feed_forward`: GELU (the tanh form, as in OpenAI's code) and
biases. Overrides `positions`: each position up to the longest row has a learned vector. Pre-norm, a
norm at the end, and tied logits are the vanilla model's already.

GPT-2's vocabulary has one token that both starts and ends a text, where the zoo has two, 0 and 1.
With `one_boundary` the model reads 0 as 1, and 0 has no share in the softmax. Overrides `embedding`
and `head` for it. Imported checkpoints need this; training does not.

Deviations. The paper has a decoder-only model alone; in an encoder-decoder both stacks are like it.
Initial weights are the zoo's: tokens and positions of unit variance, and projections by their
fan-in, where GPT-2 draws everything with a standard deviation of 0.02 and divides what residual
layers add by the root of their number. Tied logits are the vanilla model's, scaled by D^-1/2. The
norms' epsilon is `stream_epsilon`, 1e-6; GPT-2's is 1e-5.
"""

import dataclasses

import jax
import jax.numpy as jnp

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.attention import CrossAttention, SelfAttention
from arch_zoo.layers.embedding import Embedding
from arch_zoo.layers.feed_forward import FeedForward
from arch_zoo.layers.head import Head
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.norm import LayerNorm
from arch_zoo.layers.positions import LearnedPositions
from arch_zoo.registry import register
from arch_zoo.side import Side

_START, _END = 0, 1
_NEVER = -1e10


class BiasedFeedForward(FeedForward):
    """`gelu(x wi + wi_bias) wo + wo_bias`."""

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Draws both kernels; biases start at zero."""
        super().__init__(cfg, key)
        self.wi_bias = parameters.constant(0.0, (cfg.mlp_dim,), ("mlp",))
        self.wo_bias = parameters.constant(0.0, (cfg.embed_dim,), ("embed",))

    def projections(self, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        """The hidden units [B, L, F] before their activation."""
        return (parameters.affine(x_BLD, self.wi, self.wi_bias),)

    def hidden(self, *projected: jax.Array) -> jax.Array:
        """The hidden units [B, L, F]."""
        (x_BLF,) = projected
        return jax.nn.gelu(x_BLF)

    def out(self, hidden_BLF: jax.Array) -> jax.Array:
        """What the layer adds [B, L, D]."""
        return parameters.affine(hidden_BLF, self.wo, self.wo_bias)


class OneBoundaryEmbedding(Embedding):
    """A table whose row of the end token is the start token's as well."""

    def __call__(self, ids_BL: jax.Array) -> jax.Array:
        """Vectors [B, L, D] of the tokens."""
        return super().__call__(jnp.where(ids_BL == _START, _END, ids_BL))


class OneBoundaryHead(Head):
    """A softmax over all tokens but the start."""

    def logits(self, x_BTD: jax.Array, embedding: Embedding) -> jax.Array:
        """Logits [B, T, V] in float32; that of the start is so low that it is never drawn."""
        return super().logits(x_BTD, embedding).at[..., _START].set(_NEVER)

    def matrix(self, embedding: Embedding, embed_dim: int) -> jax.Array:
        """The matrix [D, V] by which states become logits; zero for the start."""
        matrix_DV = super().logits(jnp.eye(embed_dim)[None], embedding)[0]
        return matrix_DV.at[:, _START].set(0.0)


@register("gpt2")
@dataclasses.dataclass(frozen=True)
class GPT2(Architecture):
    """Layer norm, biases, GELU and learned positions.

    Attributes:
      one_boundary: the end token also starts a row, as in GPT-2's own vocabulary.
    """

    title = "GPT-2"
    paper = "Radford et al., 2019, Language Models are Unsupervised Multitask Learners"
    one_boundary: bool = False

    def norm(self, cfg: ModelConfig) -> LayerNorm:
        """Layer norm."""
        return LayerNorm(cfg.embed_dim, cfg.stream_epsilon)

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """Self-attention with scaled logits and biases."""
        return SelfAttention(cfg, key, scaled_logits=True, biases=True)

    def cross_attention(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """The same for cross-attention."""
        return CrossAttention(cfg, key, scaled_logits=True, biases=True)

    def feed_forward(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """GELU and biases."""
        return BiasedFeedForward(cfg, key)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> LearnedPositions:
        """A vector for each position up to the longest row of the side."""
        return LearnedPositions(getattr(cfg, side.limit), cfg.embed_dim, side.limit, key)

    def embedding(self, cfg: ModelConfig, key: jax.Array) -> Embedding:
        """The vanilla table, read by one or two boundary tokens."""
        return (OneBoundaryEmbedding if self.one_boundary else Embedding)(cfg, key)

    def head(self, cfg: ModelConfig, key: jax.Array) -> Head:
        """Tied logits, with or without the start token."""
        return (OneBoundaryHead if self.one_boundary else Head)(cfg)

"""Small models and batches shared by the tests of the zoo, and a jitted function for each use."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import arch_zoo
from arch_zoo import decoding, prompts
from arch_zoo.accounting import abstract_model

VOCAB = 64

# Tests spend their time on compilation, hardly any on execution, so LLVM need not optimise.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# What the heads of a recurrent mixer read can be close to zero, and their norm then magnifies
# rounding. With a larger epsilon these models are no worse conditioned than attention.
STEADY = {"norm_epsilon": 1e-2}
SPECIAL = {"hybrid": {"pattern": ("gated_deltanet", "llama")}}  # one of each in two layers

# Every architecture with its defaults, and the named variants that change what is computed.
VARIANTS: dict[str, tuple[str, dict]] = {
    **{
        name: (
            name,
            (STEADY if hasattr(arch_zoo.get(name), "norm_epsilon") else {}) | SPECIAL.get(name, {}),
        )
        for name in arch_zoo.names()
    },
    "glu-swiglu": ("glu", {"variant": "swiglu"}),
    "glu-reglu": ("glu", {"variant": "reglu"}),
    "glu-glu": ("glu", {"variant": "glu"}),
    "lconv-fairseq": ("lconv", {"form": "fairseq"}),
    "dconv-sinusoids": ("dconv", {"form": "fairseq_sinusoids"}),
    "dconv-mesh": ("dconv", {"form": "mesh", "widths": (3, 5)}),
    "performer-softmax": ("performer", {"kernel": "softmax", "num_features": 16}),
    "switch-tight": ("switch", {"num_experts": 3, "every": 1, "train_capacity_factor": 0.7}),
    "albert-groups": ("albert", {"groups": 2, "factor": 8}),
    "mos-scaled": ("mos", {"num_components": 3, "scale_context": True}),
    "funnel-query": ("funnel", {"pools": "query"}),
    "universal-accumulated": ("universal", {"act": "accumulated", "num_steps": 3}),
    "universal-basic": ("universal", {"act": "basic", "num_steps": 3}),
    "llama-grouped": ("llama", {"num_kv_heads": 1, "tied": True}),
    "sliding_window-narrow": ("sliding_window", {"windows": (3, 10), "num_kv_heads": 1}),
    "transformer-short": ("transformer", {"short_conv": "ABCD"}),
    # Before a mixer, convolutions make what heads read smaller still.
    "gla-short": ("gla", {"short_conv": "ABD", "norm_epsilon": 1.0}),
    "funnel-short": ("funnel", {"short_conv": "ABCD"}),
    "evolved-short": ("evolved", {"short_conv": "BD"}),
    "performer-short": ("performer", {"short_conv": "BC"}),
    "retnet-short": ("retnet", {"short_conv": "B"} | STEADY),
    "sliding_window-short": ("sliding_window", {"windows": (3,), "short_conv": "B"}),
    "moe-tight": (
        "moe",
        {"num_experts": 5, "top_k": 3, "num_shared": 1, "scores": "sigmoid", "scale": 2.5}
        | {"normalised": False, "train_capacity_factor": 0.7, "balance_bias": True},
    ),
    "hybrid-all": (
        "hybrid",
        {"pattern": ("gla", "sliding_window", "retnet", "llama"), "num_decoder_layers": 4} | STEADY,
    ),
    "gated_deltanet-negative": ("gated_deltanet", {"negative": True} | STEADY),
    "gated_deltanet-deltanet": (
        "gated_deltanet",
        {"decay": False, "tied": True, "centred_norms": True} | STEADY,
    ),
}
CAUSAL = {"family": "decoder_only"}
PREFIX = CAUSAL | {"prefix": "bidirectional"}
# Those that compute something else without a memory than a decoder with one.
VARIANTS |= {
    f"{label}-lm": (name, options | CAUSAL)
    for label, (name, options) in VARIANTS.items()
    if "decoder_only" in arch_zoo.get(name).families and not label.startswith("glu-")
}
VARIANTS |= {
    f"{name}-prefix": (name, PREFIX)
    for name in ("transformer", "evolved", "llama", "mixer", "performer")
}
VARIANTS["sliding_window-narrow-prefix"] = ("sliding_window", {"windows": (3, 10)} | PREFIX)

# Two layers in each stack show every dependence on depth, except a longer period; architectures
# that have one test it themselves.
SIZE = "nano"
INPUT_LENGTH, TARGET_LENGTH = 16, 12
ROW_LENGTH = INPUT_LENGTH + TARGET_LENGTH  # of a decoder-only model


@functools.cache
def config(variant: str, size: str = SIZE, **overrides) -> arch_zoo.ModelConfig:
    """The small configuration of a variant."""
    name, options = VARIANTS[variant]
    one_row = "family" in options | overrides
    defaults = {
        "vocab_size": VOCAB,
        "max_input_length": INPUT_LENGTH,
        "max_target_length": ROW_LENGTH if one_row else TARGET_LENGTH,
    }
    return arch_zoo.config(name, size, **(defaults | options | overrides))


@functools.cache
def build(cfg: arch_zoo.ModelConfig, seed: int = 0):
    """A model whose parameters are all random.

    Constants, such as biases that start at zero, would hide mistakes in the code that uses them.
    """
    model = arch_zoo.build(cfg, jax.random.key(seed))
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [
        leaf + 0.1 * jax.random.normal(key, leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
        else leaf
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)


def like(model, cfg: arch_zoo.ModelConfig):
    """A model with the configuration `cfg` and the parameters of `model`."""
    return jax.tree.unflatten(jax.tree.structure(abstract_model(cfg)), jax.tree.leaves(model))


def clear() -> None:
    """Forgets every model and the programs compiled for it.

    A process crashes after some thousands of compiled programs.
    """
    build.cache_clear()
    compiled = (forward, token_nll, value_and_grad, init_cache, prefill, decode_step, greedy)
    for function in compiled:
        function.clear_cache()


@functools.partial(jit, static_argnames="train")
def forward(model, batch, key=None, train=False):
    """Logits, auxiliary losses and diagnostics."""
    return model(batch, key=key, train=train)


@functools.partial(jit, static_argnames="train")
def token_nll(model, batch, key=None, train=False):
    """Losses of the target tokens."""
    return model.token_nll(batch, key=key, train=train)


def loss(model, batch, key=None, train=False):
    """Mean loss of the target tokens plus auxiliary losses."""
    out = model.token_nll(batch, key=key, train=train)
    weights = batch["decoder_loss_weights"]
    return jnp.sum(out.nll * weights) / jnp.sum(weights) + sum(out.aux.values())


@functools.partial(jit, static_argnames="train")
def value_and_grad(model, batch, key=None, train=False):
    """The mean loss and its gradient with respect to every parameter."""
    return jax.value_and_grad(loss, allow_int=True)(model, batch, key, train)


@jit
def init_cache(model, batch):
    """A cache for as many steps as the batch has target positions."""
    return model.init_cache(batch, batch["decoder_input_tokens"].shape[1])


@functools.partial(jit, static_argnums=2)
def prefill(model, batch, new_tokens):
    """The first logits, their index, and a cache."""
    return model.prefill(batch, new_tokens)


@jit
def decode_step(model, tokens_B, index, cache):
    """One decoding step."""
    return model.decode_step(tokens_B, index, cache)


@functools.partial(jit, static_argnums=2)
def greedy(model, batch, max_length):
    """Greedy decoding."""
    return decoding.greedy(model, batch, max_length)


def examples(
    rng: np.random.Generator, input_lengths, target_lengths
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random inputs and targets of the given lengths, each ending in EOS."""
    pairs = []
    for lengths in zip(input_lengths, target_lengths, strict=True):
        pairs.append(
            tuple(
                np.append(rng.integers(2, VOCAB, length - 1), 1).astype(np.int32)
                for length in lengths
            )
        )
    return pairs


def pad(
    pairs,
    input_length: int = INPUT_LENGTH,
    target_length: int = TARGET_LENGTH,
    *,
    family: str = "encoder_decoder",
) -> dict[str, jax.Array]:
    """A batch with one example in each row; its target follows its input where it has one row."""
    if family == "decoder_only":
        return _lay_in_one([[pair] for pair in pairs], input_length + target_length)[0]
    inputs = np.zeros((len(pairs), input_length), np.int32)
    targets = np.zeros((len(pairs), target_length), np.int32)
    for row, (source, target) in enumerate(pairs):
        inputs[row, : len(source)] = source
        targets[row, : len(target)] = target
    return _batch(inputs, targets, np.pad(targets, ((0, 0), (1, 0)))[:, :-1])


def starts(pairs, family: str) -> list[int]:
    """The position of each example's first target in its row of `pad`."""
    return [len(source) if family == "decoder_only" else 0 for source, _ in pairs]


def given(pairs, family: str, length: int = INPUT_LENGTH) -> dict[str, jax.Array]:
    """What `prefill` reads of examples."""
    if family == "decoder_only":
        made = prompts.left_padded([source for source, _ in pairs], length + 1)
        return {name: jnp.asarray(rows) for name, rows in made.items()}
    return {"encoder_input_tokens": pad(pairs, length)["encoder_input_tokens"]}


def pack(
    pairs,
    multiple: int = 1,
    input_length: int = INPUT_LENGTH,
    target_length: int = TARGET_LENGTH,
    *,
    family: str = "encoder_decoder",
):
    """A batch with all examples in one row; encoder segments start at multiples of `multiple`.

    Also returns the position at which each target starts.
    """
    if family == "decoder_only":
        batch, (firsts,) = _lay_in_one([pairs], input_length + target_length, packed=True)
        return batch, firsts
    inputs, segments, positions = (np.zeros((1, input_length), np.int32) for _ in range(3))
    targets, shifted, target_segments, target_positions = (
        np.zeros((1, target_length), np.int32) for _ in range(4)
    )
    here, firsts, start = 0, [], 0
    for number, (source, target) in enumerate(pairs, start=1):
        here = -(-here // multiple) * multiple
        span, target_span = slice(here, here + len(source)), slice(start, start + len(target))
        inputs[0, span], segments[0, span], positions[0, span] = (
            source,
            number,
            np.arange(len(source)),
        )
        targets[0, target_span], target_segments[0, target_span] = target, number
        shifted[0, target_span] = np.append(0, target[:-1])
        target_positions[0, target_span] = np.arange(len(target))
        firsts.append(start)
        here, start = here + len(source), start + len(target)
    packed = {
        "encoder_segment_ids": segments,
        "encoder_positions": positions,
        "decoder_segment_ids": target_segments,
        "decoder_positions": target_positions,
    }
    return _batch(inputs, targets, shifted) | {
        name: jnp.asarray(ids) for name, ids in packed.items()
    }, firsts


def _batch(inputs, targets, shifted) -> dict[str, jax.Array]:
    return {
        "encoder_input_tokens": jnp.asarray(inputs),
        "decoder_input_tokens": jnp.asarray(shifted),
        "decoder_target_tokens": jnp.asarray(targets),
        "decoder_loss_weights": jnp.asarray((targets > 0).astype(np.float32)),
    }


def _lay_in_one(rows, length: int, *, packed: bool = False):
    """Inputs followed by targets, example after example; and where each target starts, by row."""
    tokens, shifted, segments, positions, prefix = (
        np.zeros((len(rows), length), np.int32) for _ in range(5)
    )
    weights, firsts = np.zeros((len(rows), length), np.float32), []
    for b, row in enumerate(rows):
        at, firsts_of_row = 0, []
        for number, (source, target) in enumerate(row, start=1):
            both = np.concatenate([source, target])
            here = slice(at, at + len(both))
            tokens[b, here], shifted[b, here] = both, np.append(0, both[:-1])
            segments[b, here], positions[b, here] = number, np.arange(len(both))
            prefix[b, at : at + len(source) + 1] = 1
            weights[b, at + len(source) : at + len(both)] = 1
            firsts_of_row.append(at + len(source))
            at += len(both)
        firsts.append(firsts_of_row)
    batch = {
        "decoder_input_tokens": shifted,
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": weights,
        "decoder_causal_attention": prefix,
    }
    if packed:
        batch |= {"decoder_segment_ids": segments, "decoder_positions": positions}
    return {name: jnp.asarray(values) for name, values in batch.items()}, firsts

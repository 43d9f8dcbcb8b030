"""How every parameter is initialised.

Its distribution and scale must follow a formula, and no two parameters may share their random
numbers.
"""

import math
import re
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import arch_zoo
from arch_zoo.architectures.gpt2 import GPT2
from arch_zoo.architectures.llama import LlamaBlocks

VOCAB = 512
# D, F, K, H * K and V all differ, so that no two can be mixed up. A recurrent mixer has more
# parameters, so that its heads are narrower.
SIZE, RECURRENT_SIZE = "micro-NL4-NH4", "micro-NL4-NH4-KV12"
SIGMAS = 5  # of the estimate; exceeded by chance once in two million

# The options that change how a parameter starts, or add one.
CASES: dict[str, tuple[str, dict]] = {
    **{name: (name, {}) for name in arch_zoo.names()},
    "switch-every-layer": ("switch", {"every": 1, "num_experts": 3}),
    "lconv-fairseq": ("lconv", {"form": "fairseq"}),
    "dconv-mesh": ("dconv", {"form": "mesh"}),
    "albert-factor": ("albert", {"factor": 16}),
    "universal-act": ("universal", {"act": "accumulated"}),
    "transformer-shared": ("transformer", {"shared_heads": True}),
    "llama-grouped": ("llama", {"num_kv_heads": 2}),
}
RECURRENT = ("retnet", "gla", "gated_deltanet", "mamba2", "hybrid")

# Rows of (path, distribution, formula of the standard deviation given the shape and the
# configuration); the first row that matches counts. Of values that are given and not drawn from
# one distribution, the formula has the bounds.
NORMAL, TRUNCATED, UNIFORM, CONSTANT = "normal", "truncated", "uniform", "constant"
GIVEN = "given"
TABLE = [
    (r"(decay|steps)\.bias", GIVEN, lambda shape, cfg: (_step_bias(1e-3), _step_bias(0.1))),
    (r"decay\.log_rate", GIVEN, lambda shape, cfg: (math.log(0.01), math.log(16))),
    (r"steps\.log_rate", GIVEN, lambda shape, cfg: (0, math.log(shape[0]))),
    (r"skip", CONSTANT, lambda shape, cfg: 1.0),
    (r"halt\.bias", CONSTANT, lambda shape, cfg: 1.0),
    (r"(norm|.*norm)\.scale", CONSTANT, lambda shape, cfg: 1.0),
    (r"(.*_)?bias", CONSTANT, lambda shape, cfg: 0.0),
    (r"embedding\.(table|expansion)", NORMAL, lambda shape, cfg: _factor(cfg) ** -0.25),
    (
        r"positions\.((single|double)\.)?table",
        UNIFORM,
        lambda shape, cfg: math.sqrt(2 / (32 + shape[-1])),
    ),
    (r"step_signal", NORMAL, lambda shape, cfg: 1.0),
    (r"halt\.kernel", UNIFORM, lambda shape, cfg: math.sqrt(2 / (cfg.embed_dim + 1))),
    (r"head\.(weights|contexts)", NORMAL, lambda shape, cfg: 1.0),
    (r"query", NORMAL, lambda shape, cfg: (cfg.embed_dim * _logit_scale(cfg)) ** -0.5),
    (r"key|value", NORMAL, lambda shape, cfg: cfg.embed_dim**-0.5),
    (r"(self_attention|cross_attention|layer)\.out", NORMAL, lambda shape, cfg: shape[0] ** -0.5),
    (
        r"right",
        UNIFORM,
        lambda shape, cfg: math.sqrt(2 / (3 * 1.5 * cfg.embed_dim)),
    ),  # three taps from D to D / 2
    (
        r"(linear|gate|left|pointwise|out|dense)\.kernel|head\.table",
        TRUNCATED,
        lambda shape, cfg: shape[0] ** -0.5,
    ),
    (r"layer\.kernel", None, lambda shape, cfg: _kernel_fan_in(shape, cfg) ** -0.5),
    (
        r"taps|router|w[io](_[01])?",
        TRUNCATED,
        lambda shape, cfg: shape[-2] ** -0.5,
    ),  # the inputs of one expert, not E times as many
]
# No draw is further from zero than this many standard deviations; a truncated normal is cut at two
# standard deviations of its parent.
LARGEST = {NORMAL: 6.0, TRUNCATED: 2 / 0.87962566, UNIFORM: math.sqrt(3)}


def _logit_scale(cfg) -> int:
    """K, by which queries start smaller; some divide logits by its root instead."""
    return 1 if isinstance(cfg.architecture, GPT2 | LlamaBlocks) else cfg.head_dim


def _step_bias(step: float) -> float:
    """What softplus maps to this step."""
    return math.log(math.expm1(step))


def _factor(cfg) -> float:
    """The rank of albert's embedding; the tables of others are unit normal."""
    return (cfg.architecture.factor or cfg.embed_dim // 2) if cfg.name == "albert" else 1.0


def _kernel_fan_in(shape, cfg) -> int:
    """The taps of a lightweight kernel, or the inputs of a dynamic kernel's predictor.

    In the mesh form, these inputs are counted for each tap.
    """
    if cfg.name == "lconv":
        return shape[0]
    return shape[0] * shape[1] if cfg.architecture.form == "mesh" else shape[1]


def _expected(path: str, shape, cfg) -> tuple[str, Any]:
    if cfg.name in ("gpt2", "performer") and path.endswith("positions.table"):
        return NORMAL, 1.0  # tables of vectors, not of biases
    attention = "cross_attention" in path or (cfg.name == "hybrid" and "blocks.3.self" in path)
    if cfg.name in RECURRENT and not attention and len(shape) == 2:
        if path.endswith("taps"):
            return NORMAL, shape[0] ** -0.5
        if "table" not in path:
            return TRUNCATED, shape[0] ** -0.5
    for pattern, kind, formula in TABLE:
        if re.search(rf"(^|\.)({pattern})$", path):
            return kind or (NORMAL if cfg.name == "lconv" else TRUNCATED), formula(shape, cfg)
    raise AssertionError(f"no formula for {path} {shape}")


# Drawing the parameters of the whole zoo takes ten seconds, almost all of it compilation.
FAST = ("transformer", "switch", "universal")


@pytest.fixture(
    scope="module",
    params=[c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
)
def drawn(request):
    """A configuration, its freshly initialised parameters by path, and what they say they are."""
    name, options = CASES[request.param]
    size = RECURRENT_SIZE if name in RECURRENT else SIZE
    cfg = arch_zoo.config(
        name, size, vocab_size=VOCAB, max_input_length=48, max_target_length=48, **options
    )
    state = nnx.to_flat_state(nnx.state(arch_zoo.build(cfg, jax.random.key(0)), nnx.Param))
    params = {".".join(map(str, path)): param for path, param in state}
    values = {path: np.asarray(param[...], np.float64) for path, param in params.items()}
    return cfg, values, {path: param.get_metadata() for path, param in params.items()}


def test_every_parameter_starts_from_its_formula(drawn):
    cfg, params, said = drawn
    for path, values in params.items():
        kind, std = _expected(path, values.shape, cfg)
        if kind == GIVEN:
            assert np.all((values > std[0] - 1e-6) & (values < std[1] + 1e-6)), path
            assert np.ptp(values) > 0.1 * (std[1] - std[0]), path
            continue
        if kind == CONSTANT:
            np.testing.assert_array_equal(values, std, err_msg=path)
            assert "stddev" not in said[path], path
            continue
        assert said[path]["stddev"] == pytest.approx(std), path
        if kind == TRUNCATED:
            assert said[path]["fan_in"] == pytest.approx(std**-2), path
        where, count = f"{path} {values.shape}", values.size
        assert abs(values.mean()) < SIGMAS * std / math.sqrt(count), where
        assert values.std() == pytest.approx(std, rel=SIGMAS / math.sqrt(2 * count)), where
        furthest = np.abs(values).max() / std
        assert furthest < 1.0001 * LARGEST[kind], where
        if kind == NORMAL and count >= 1 << 14:
            assert furthest > 3.5, f"{where} is cut"
        if kind == UNIFORM and count > 100:
            assert furthest > 0.9 * LARGEST[UNIFORM], where


def test_every_parameter_is_a_draw_of_its_own(drawn):
    """No two blocks, stacks or matrices of a layer share a key, even if their scales differ."""
    _, params, _ = drawn
    starts = {
        path: values.ravel()[:128]
        for path, values in params.items()
        if np.ptp(values) and values.size >= 128
    }
    names = list(starts)
    alike = np.abs(np.corrcoef(np.stack(list(starts.values()))) - np.eye(len(names)))
    one, other = np.unravel_index(alike.argmax(), alike.shape)
    assert alike.max() < 0.6, f"{names[one]} and {names[other]} are drawn from one key"

"""What `mup` and `completep` change: nothing at the base size, and by how much beside it."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import arch_zoo
from arch_zoo.parametrization import STANDARD, Growth, Ratio, growth
from arch_zoo.registry import ConfigError
from arch_zoo.roles import role
from tests.arch_zoo import models

MUP = json.loads((Path(__file__).parents[1] / "parity" / "goldens" / "mup.json").read_text())
NAMES = arch_zoo.names()
FAST = ("transformer", "mos", "albert", "mamba2")


def _model(name, size, kind="mup", base="nano", **options):
    given = {} if kind == "standard" else {"parametrization": kind, "base_size": base}
    lengths = {"max_input_length": 16, "max_target_length": 12}
    return arch_zoo.config(name, size, vocab_size=64, **lengths, **given, **options)


def _flat(cfg):
    state = nnx.to_flat_state(nnx.state(arch_zoo.build(cfg, jax.random.key(0)), nnx.Param))
    return {".".join(map(str, path)): param for path, param in state}


@pytest.mark.parametrize("kind", ["mup", "completep"])
@pytest.mark.parametrize(
    "name",
    ["transformer", "mos", *[pytest.param(n, marks=pytest.mark.slow) for n in ("llama", "funnel")]],
)
def test_at_the_base_size_all_parametrizations_are_one_model(name, kind):
    plain, carried = _model(name, "nano", "standard"), _model(name, "nano", kind)
    for path, param in _flat(plain).items():
        np.testing.assert_array_equal(param[...], _flat(carried)[path][...], err_msg=path)
    batch = models.pad(models.examples(np.random.default_rng(0), (12, 5), (10, 4)))
    expected, found = (
        models.forward(arch_zoo.build(cfg, jax.random.key(0)), batch).logits
        for cfg in (plain, carried)
    )
    np.testing.assert_array_equal(found, expected)
    assert set(growth(carried).ratios.values()) == {Ratio()}
    assert growth(carried).epsilon == 1 and growth(plain) == STANDARD


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_matrices_of_twice_the_width_learn_at_half_the_rate(name):
    """Those whose fan-in is not the width, tables and vectors learn at the rate of the base."""
    options = {"factor": 8} if name == "albert" else {}
    cfg = _model(name, "micro-KV16-NH4", **options)  # nano, twice as wide
    axes = {path: param.axes for path, param in _flat(cfg).items()}
    ratios = growth(cfg).ratios
    assert set(ratios) == set(axes)
    inner = cfg.base.mlp_dim / cfg.mlp_dim  # about a half, except in mamba2
    halved = [
        path
        for path in axes
        if any(ratios[path].of_entries == pytest.approx(r, rel=0.05) for r in (0.5, inner))
    ]
    for path, ratio in ratios.items():
        if path in halved:
            assert ratio.of_relative == pytest.approx(ratio.of_entries**0.5, rel=0.05), path
            assert role(axes[path]) in ("matrix", "expert", "gate", "convolution"), path
        elif role(axes[path]) != "embedding":  # T5's biases start smaller with more heads
            assert ratio.of_entries == 1, path
    ends = (".wi", ".wi_0", ".wo", "left.kernel", "mixer.layer.gate")
    feed_forward = [p for p in axes if p.endswith(ends)]
    assert feed_forward
    if name != "mixer":  # whose matrices over positions have the fan-in of the length
        assert set(feed_forward) <= set(halved)


def test_multipliers_equal_those_of_the_mup_package():
    """Rate, logits and initial weights by role, for Adam and three widths."""
    for case in MUP["cases"]:
        multiple = case["width"] / MUP["base_width"]
        size = f"nano-DM{case['width']}-FF{4 * case['width']}-NH{round(2 * multiple)}"
        cfg = _model("llama", size, family="decoder_only")
        params, ratios = _flat(cfg), growth(cfg).ratios
        by_role = {
            "embedding": "embedding.table",
            "matrix": "decoder.blocks.0.feed_forward.layer.wi_0",
            "vector": "decoder.norm.scale",
            "head": "head.table",
        }
        for kind, path in by_role.items():
            assert ratios[path].of_entries == pytest.approx(case["rate"][kind]), (kind, multiple)
            if kind != "vector":
                assert ratios[path].stddev == pytest.approx(case["stddev"][kind]), (kind, multiple)
                assert params[path].get_metadata()["stddev"] > 0
        assert 1 / cfg.width_ratio == pytest.approx(case["logits"])


def test_wide_heads_and_deep_models_are_scaled_in_the_forward_pass():
    base, wide = _model("transformer", "nano", "standard"), _model("transformer", "nano-KV64")
    narrow = arch_zoo.build(base, jax.random.key(0)).decoder.blocks[0].self_attention.layer
    attention = arch_zoo.build(wide, jax.random.key(0)).decoder.blocks[0].self_attention.layer
    assert (narrow.scale, attention.scale) == (1.0, 0.25)  # 1 / K in place of K^-1/2 ...
    ratio = attention.query.stddev / narrow.query.stddev
    assert ratio == 1  # ... which T5 keeps in the initial queries
    deep = _model("transformer", "nano-EL8-DL4", "completep")
    assert deep.depth_ratio == 3 and growth(deep).epsilon == pytest.approx(1 / 3)
    x_BLD = np.ones((1, 2, 32), np.float32)
    block = arch_zoo.build(deep, jax.random.key(0)).decoder.blocks[0].feed_forward
    from arch_zoo.layers.context import Context

    ctx = Context(np.ones((1, 2), np.int32), np.arange(2)[None])
    np.testing.assert_allclose(block.add(x_BLD, 3 * x_BLD, ctx), 2 * x_BLD, rtol=1e-6)
    assert _model("transformer", "nano-EL8-DL4").depth_ratio == 1  # mup leaves the depth alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parametrization": "mup"}, "base_size=''"),
        ({"base_size": "nano"}, "base_size='nano'"),
        ({"parametrization": "mup", "base_size": "huge"}, "'huge'"),
        ({"parametrization": "ntk", "base_size": "nano"}, "parametrization='ntk'"),
    ],
)
def test_a_parametrization_without_a_base_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        growth(arch_zoo.config("transformer", "nano", **options))


def test_growth_of_an_unknown_parameter_is_one():
    assert Growth().ratio("anything") == Ratio()

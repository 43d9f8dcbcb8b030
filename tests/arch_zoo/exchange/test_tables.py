"""Every table names each parameter of ours and each tensor of theirs once, and can be undone."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import arch_zoo
from arch_zoo import exchange, sizes

# Odd on purpose: no two dimensions are equal, so that a wrong layout cannot have the right shape.
SHAPES = {
    "encoder_decoder": {
        "num_encoder_layers": 4,
        "num_decoder_layers": 2,
        "embed_dim": 12,
        "mlp_dim": 20,
        "num_heads": 3,
        "head_dim": 6,
    },
    "decoder_only": {
        "num_decoder_layers": 2,
        "embed_dim": 20,
        "mlp_dim": 40,
        "num_heads": 4,
        "head_dim": 8,
    },
}
UNSCALED = {"scale_tied_logits": False}
OPTIONS = {
    "transformer": [{}, UNSCALED],
    "glu": [{}, UNSCALED, {"tied": False, "variant": "swiglu"}],
    "switch": [{"num_experts": 3}],
    "gpt2": [
        {"head_dim": 5},
        {"head_dim": 5, "one_boundary": True, "stream_epsilon": 1e-5} | UNSCALED,
    ],
    "llama": [
        {"num_kv_heads": 2},
        {"tied": True, "theta": 500.0},
        {"tied": True} | UNSCALED,
    ],
    "sliding_window": [{"windows": (7,)}, {"windows": (0,)}],
    "moe": [{"num_experts": 3, "num_kv_heads": 1}],
    "mamba2": [
        {"norm_epsilon": 1e-5, "stream_epsilon": 1e-5},
        {"tied": True, "norm_epsilon": 1e-6},
        {"tied": True, "norm_epsilon": 1e-6} | UNSCALED,
    ],
    "gated_deltanet": [
        {"norm_epsilon": 1e-6},
        {"norm_epsilon": 1e-6, "centred_norms": True, "tied": True} | UNSCALED,
    ],
}
CASES = [
    pytest.param(name, options, id=f"{name}-{number}")
    for name, several in OPTIONS.items()
    for number, options in enumerate(several)
]


def config(name, **options):
    family = exchange.maps()[name].family
    return arch_zoo.config(name, "nano", family=family, vocab_size=29, **SHAPES[family] | options)


def shapes_of(cfg):
    model = nnx.eval_shape(lambda: arch_zoo.build(cfg, jax.random.key(0)))
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): leaf.shape for path, leaf in flat}


def drawn(cfg, seed=0):
    rng = np.random.default_rng(seed)
    shapes = shapes_of(cfg).items()
    # Scales around 1, as an offset of 1 loses digits of others.
    found = {path: (1 + 0.1 * rng.normal(size=shape)).astype(np.float32) for path, shape in shapes}
    if getattr(cfg.architecture, "one_boundary", False):
        found["embedding.table"][-1] = 0  # a row that nothing reads
    return found


def test_every_map_is_tested():
    assert set(exchange.maps()) == set(OPTIONS)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_table_can_be_undone(name, options):
    cfg = config(name, **options)
    found = exchange.of_architecture(cfg)
    settings = found.written(cfg)
    rows, params = list(found.rows(cfg, settings)), drawn(cfg)
    named = [path for row in rows for path in row.ours]
    assert sorted(named) == sorted(params)
    theirs = [tensor for row in rows for tensor in row.theirs]
    assert len(set(theirs)) == len(theirs)
    tensors = exchange.export_tensors(rows, params)
    back = exchange.import_tensors(rows, tensors, shapes_of(cfg))
    for path, value in params.items():
        ulps = 1 if row_of(rows, path).scale != 1 else 0
        np.testing.assert_array_max_ulp(back[path], value, ulps)
        assert back[path].dtype == np.float32


def row_of(rows, path):
    return next(row for row in rows if path in row.ours)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_settings_say_what_a_model_is(name, options):
    cfg = config(name, **options)
    found = exchange.of_architecture(cfg)
    settings = found.written(cfg)
    assert type(exchange.find(settings)) is type(found)
    again = found.config(settings)
    assert shapes_of(again) == shapes_of(cfg)
    assert found.settings(again) == found.settings(cfg)


@pytest.mark.parametrize(
    "size",
    ["small-KV32", "base", "tiny-EL6-DL2", "large-NL36", "mini-NL6-DM256-NH4", "xxl-FF16384"],
)
def test_a_size_is_named_by_its_dimensions(size):
    dims = dataclasses.asdict(sizes.dimensions(size))
    named = {key: value for key, value in dims.items() if not isinstance(value, bool)}
    found = sizes.nearest(named)
    assert sizes.dimensions(found) == sizes.dimensions(size)
    assert found.count("-") <= size.count("-")


def test_a_language_models_size_has_its_own_names():
    dims = dataclasses.asdict(sizes.dimensions("pythia_1b"))
    alone = {key: dims[key] for key in ("num_decoder_layers", "embed_dim", "mlp_dim", "num_heads")}
    assert sizes.nearest(alone | {"head_dim": dims["head_dim"]}) == "pythia_1b"

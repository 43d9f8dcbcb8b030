"""LConv's and DConv's special features: counts per form, widths by depth, buffers, kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from arch_zoo.accounting import abstract_model
from arch_zoo.layers.context import Context
from tests import tolerances
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models

S, T = 512, 114


def mixer_params(cfg, width: int) -> int:
    """Parameters of a layer: its dense layers with biases, then the kernel.

    The mesh form has an additional pointwise layer and bias.
    """
    dim, architecture = cfg.embed_dim, cfg.architecture
    groups = dim if architecture.form == "mesh" else cfg.num_heads
    layers = 3 * (dim * dim + dim)
    if architecture.form == "mesh":
        layers += dim * dim + dim + dim
    if cfg.name == "lconv":
        return layers + width * groups
    return layers + width * dim * groups + (width * groups if architecture.form == "mesh" else 0)


def mixer_flops(cfg, width: int) -> int:
    """FLOPs of one position: the dense layers, the taps of every channel, the predictor."""
    dim, architecture = cfg.embed_dim, cfg.architecture
    groups = dim if architecture.form == "mesh" else cfg.num_heads
    dense = (4 if architecture.form == "mesh" else 3) * dim * dim
    return 2 * (dense + width * dim + (width * dim * groups if cfg.name == "dconv" else 0))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["nano", "tiny", "base"])
@pytest.mark.parametrize("form", ["mesh", "fairseq", "fairseq_sinusoids"])
@pytest.mark.parametrize("name", ["lconv", "dconv"])
def test_closed_form_counts(name, form, size):
    cfg = arch_zoo.config(name, size, form=form, widths=(3, 7))
    params, flops = on_paper.vanilla_params(cfg), on_paper.vanilla_flops(cfg, S, T)
    params -= 2 * on_paper.BUCKETS * cfg.num_heads
    for depth in range(cfg.num_encoder_layers):
        width = (3, 7)[depth % 2]
        params += 2 * (mixer_params(cfg, width) - on_paper.attention_params(cfg))
        for length in (S, T):
            products = 4 * length * cfg.num_heads * cfg.head_dim
            flops += length * (
                mixer_flops(cfg, width) - 2 * on_paper.attention_params(cfg) - products
            )
    assert arch_zoo.count_params(cfg).total == params
    assert arch_zoo.count_flops(cfg, S, T).forward == flops


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("lconv", {}, 223),
        ("lconv", {"form": "fairseq"}, 209),
        ("dconv", {"form": "mesh", "widths": (7,)}, 322),
        ("dconv", {}, 212),
    ],
)
def test_base_sizes(name, options, millions):
    """The first three figures are published; DConv's default exists only in this project."""
    assert (
        round(arch_zoo.count_params(arch_zoo.config(name, "base", **options)).total / 1e6)
        == millions
    )


@pytest.mark.parametrize("name", ["lconv", "dconv"])
def test_widths_repeat_with_the_depth_and_decoding_keeps_one_less(name):
    cfg = models.config(name, "nano-NL6")
    batch = {"encoder_input_tokens": jnp.ones((2, 5), jnp.int32)}
    cache = jax.eval_shape(lambda model: model.init_cache(batch, 100), abstract_model(cfg))
    lengths = [layer["self_attention"].shape[1] for layer in cache["layers"]]
    assert lengths == [2, 6, 14, 30, 2, 6]


@pytest.mark.parametrize("name", ["lconv", "dconv"])
@pytest.mark.parametrize(
    ("depth", "widths"), [(4, (3, 5, 7)), (2, (3, 5)), (3, (3, 5, 7)), (5, (3, 5))]
)
def test_a_broken_period_cannot_be_scanned(name, depth, widths):
    """A period that comes only once is refused too, as there is nothing to loop over.

    The contract scans complete periods.
    """
    cfg = models.config(name, f"nano-NL{depth}", widths=widths, scan_layers=True)
    with pytest.raises(arch_zoo.ConfigError, match=f"these {depth} blocks never repeat"):
        abstract_model(cfg)


@pytest.mark.parametrize("name", ["lconv", "dconv"])
@pytest.mark.parametrize(
    ("depth", "widths", "period"),
    [(6, (3, 5, 7), 3), (4, (3, 5), 2), (6, (3, 5), 2), (4, (3, 5, 3, 5), 2), (3, (5,), 1)],
)
def test_as_many_widths_are_a_period(name, depth, widths, period):
    cfg = models.config(name, f"nano-NL{depth}", widths=widths, scan_layers=True)
    assert abstract_model(cfg).encoder.period() == period


def layer_of(name: str, form: str):
    cfg = arch_zoo.config(name, "nano", form=form, widths=(5,), vocab_size=models.VOCAB)
    return models.build(cfg).encoder.blocks[0].self_attention.layer


@pytest.mark.slow
@pytest.mark.parametrize("form", ["mesh", "fairseq"])
def test_only_the_dynamic_kernel_follows_the_input(form):
    """Twice the gated input gives twice the sum of taps only if the kernel is fixed."""
    rng = np.random.default_rng(0)
    gated_BLD = jnp.asarray(rng.normal(size=(2, 9, 32)), jnp.float32)
    for name, follows in (("lconv", False), ("dconv", True)):
        layer = layer_of(name, form)
        once, twice = (jax.nn.softmax(layer.logits(scale * gated_BLD), axis=0) for scale in (1, 2))
        np.testing.assert_allclose(once.sum(axis=0), 1, atol=tolerances.REORDERED)
        assert (np.abs(once - twice).max() > 1e-3) == follows
        channels = 32 if form == "mesh" else 2
        assert once.shape == ((5, 2, 9, channels) if follows else (5, 1, 1, channels))


def test_predicted_kernels_depend_on_their_position_only():
    layer = layer_of("dconv", "fairseq")
    x_BLD = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 32)), jnp.float32)
    change = np.abs(layer.logits(x_BLD) - layer.logits(x_BLD.at[:, 4].add(1))).max(axis=(0, 1, 3))
    np.testing.assert_array_equal(change > 0, np.arange(9) == 4)


def test_dropconnect_belongs_to_the_papers_form():
    """It drops whole weights.

    With everything else kept, some taps vanish in fairseq's form and none in mesh's.
    """
    x_BLD = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 32)), jnp.float32)
    ids = jnp.ones((1, 9), jnp.int32)
    plain = Context(ids, ids)
    dropping = Context(ids, ids, key=jax.random.key(0), train=True, dropout_rate=0.5)
    for form, differs in (("mesh", False), ("fairseq", True)):
        layer = layer_of("lconv", form)
        assert (np.abs(layer(x_BLD, plain)[0] - layer(x_BLD, dropping)[0]).max() > 1e-3) == differs


@pytest.mark.parametrize("name", ["lconv", "dconv"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (4,)}, "widths"),
        ({"widths": ()}, "widths"),
        ({"widths": (3, 0)}, "widths"),
        ({"form": "keras"}, "form"),
        ({"form": "fairseq", "num_heads": 5}, "num_heads=5"),
    ],
)
def test_nonsense_is_refused(name, options, message):
    with pytest.raises(arch_zoo.ConfigError, match=f"{name}: .*{message}"):
        arch_zoo.config(name, "nano", **options)

"""Parameters and FLOPs against closed forms from the papers; FLOPs also against XLA's own count."""

import collections
import re

import jax
import jax.numpy as jnp
import pytest

import arch_zoo
from arch_zoo import accounting
from arch_zoo.accounting import abstract_model
from arch_zoo.families import MODELS
from tests import tolerances

S, T = 512, 114


def attention_params(cfg) -> int:
    return 4 * cfg.embed_dim * cfg.num_heads * cfg.head_dim


def vanilla_params(
    cfg, feed_forward: int, encoder_mixer: int, decoder_mixer: int, positions: int
) -> int:
    """Parameters of a T5.1.0 model with other feed-forward layers or mixers."""
    dim = cfg.embed_dim
    encoder = cfg.num_encoder_layers * (encoder_mixer + feed_forward + 2 * dim)
    decoder = cfg.num_decoder_layers * (
        decoder_mixer + attention_params(cfg) + feed_forward + 3 * dim
    )
    return cfg.vocab_size * dim + encoder + decoder + 2 * dim + positions


def vanilla_flops(cfg, feed_forward: int, mixer, cross: bool = True) -> int:
    """Forward FLOPs of one sequence; `feed_forward` is per token, `mixer(length)` per layer."""
    joined = cfg.num_heads * cfg.head_dim
    project, products = 2 * cfg.embed_dim * joined, 4 * joined
    cross_attention = T * 2 * project + S * 2 * project + T * S * products
    encoder = cfg.num_encoder_layers * (mixer(S) + S * feed_forward)
    decoder = cfg.num_decoder_layers * (mixer(T) + cross_attention + T * feed_forward)
    return encoder + decoder + 2 * T * cfg.embed_dim * cfg.vocab_size


def self_attention_flops(cfg):
    joined = cfg.num_heads * cfg.head_dim
    return lambda length: length * 4 * 2 * cfg.embed_dim * joined + length**2 * 4 * joined


@pytest.mark.parametrize("size", ["nano", "tiny", "base"])
def test_transformer(size):
    cfg = arch_zoo.config("transformer", size)
    dim, mlp = cfg.embed_dim, cfg.mlp_dim
    params = arch_zoo.count_params(cfg)
    attention = attention_params(cfg)
    assert params.total == vanilla_params(
        cfg, 2 * dim * mlp, attention, attention, 2 * 32 * cfg.num_heads
    )
    assert (
        params.embedding == cfg.vocab_size * dim + 2 * 32 * cfg.num_heads
        and params.active == params.total
    )
    flops = arch_zoo.count_flops(cfg, S, T)
    assert flops.forward == vanilla_flops(cfg, 4 * dim * mlp, self_attention_flops(cfg))
    assert flops.train == 3 * flops.forward


@pytest.mark.parametrize("size", ["nano", "tiny", "base"])
def test_glu(size):
    cfg = arch_zoo.config("glu", size)
    dim, mlp, attention = cfg.embed_dim, cfg.mlp_dim, attention_params(cfg)
    total = vanilla_params(cfg, 3 * dim * mlp, attention, attention, 2 * 32 * cfg.num_heads)
    assert arch_zoo.count_params(cfg).total == total
    assert arch_zoo.count_flops(cfg, S, T).forward == vanilla_flops(
        cfg, 6 * dim * mlp, self_attention_flops(cfg)
    )


@pytest.mark.parametrize("size", ["nano", "tiny", "base"])
@pytest.mark.parametrize("form", ["mesh", "fairseq"])
def test_lconv(size, form):
    cfg = arch_zoo.config("lconv", size, form=form, widths=(7,))
    dim, mlp = cfg.embed_dim, cfg.mlp_dim
    squares, channels, biases = (4, dim, 5) if form == "mesh" else (3, cfg.num_heads, 3)
    mixer = squares * dim**2 + 7 * channels + biases * dim
    assert arch_zoo.count_params(cfg).total == vanilla_params(cfg, 2 * dim * mlp, mixer, mixer, 0)

    def flops(length):
        return length * (squares * 2 * dim**2 + 7 * 2 * dim)

    assert arch_zoo.count_flops(cfg, S, T).forward == vanilla_flops(cfg, 4 * dim * mlp, flops)


@pytest.mark.parametrize("size", ["nano", "tiny", "base"])
def test_universal(size):
    cfg, vanilla = arch_zoo.config("universal", size), arch_zoo.config("transformer", size)
    dim, mlp, attention, layers = (
        cfg.embed_dim,
        cfg.mlp_dim,
        attention_params(cfg),
        cfg.num_encoder_layers,
    )
    one_block = 2 * attention + 4 * dim * mlp + attention + 5 * dim
    total = cfg.vocab_size * dim + one_block + 2 * dim + 2 * 32 * cfg.num_heads + 2 * layers * dim
    assert arch_zoo.count_params(cfg).total == total
    assert arch_zoo.count_flops(cfg, S, T) == arch_zoo.count_flops(vanilla, S, T)


@pytest.mark.parametrize("size", ["nano", "tiny"])
def test_tables_of_positions_and_steps_are_embedding(size):
    """These are the tables that are looked up by a position or a step.

    Mixer's weights belong to positions as well, but are multiplied, so they are not embedding.
    """
    vanilla = arch_zoo.config("transformer", size)
    dim, heads, layers = vanilla.embed_dim, vanilla.num_heads, vanilla.num_encoder_layers
    tables = dict.fromkeys(
        ("transformer", "switch", "funnel", "albert", "mos", "glu"), 2 * 32 * heads
    )
    tables |= {
        "gpt2": (512 + 512) * dim,
        "performer": (512 + 512) * dim,
        "universal": 2 * 32 * heads + 2 * layers * dim,
        "evolved": 2 * 32 * heads + 32 * 2 * heads,
        "mixer": 32 * heads,  # the biases of its decoder
        "lconv": 0,
        "dconv": 0,
    }
    for name, positions in tables.items():
        cfg = arch_zoo.config(name, size)
        params = arch_zoo.count_params(cfg)
        factor = dim // 2 if name == "albert" else 0
        tokens = cfg.vocab_size * (factor or dim) + factor * dim
        assert params.embedding == tokens + positions, name
        assert params.non_embedding == params.total - params.embedding


def test_a_performer_is_as_large_as_the_vanilla_model():
    """Apart from its tables of positions, which at nano are 56 % of the vanilla model's size."""
    performer, vanilla = (
        arch_zoo.count_params(arch_zoo.config(name, "nano"))
        for name in ("performer", "transformer")
    )
    assert performer.non_embedding == vanilla.non_embedding
    assert (performer.embedding - vanilla.embedding) / vanilla.non_embedding == pytest.approx(
        0.56, abs=0.01
    )


def counted(name, size="tiny", batch_size=1, options=None, **convention) -> int:
    cfg = arch_zoo.config(name, size, **(options or {}))
    return arch_zoo.count_flops(
        cfg, S, T, convention=arch_zoo.Convention(**convention), batch_size=batch_size
    ).forward


def test_conventions_of_head_and_embedding():
    cfg = arch_zoo.config("transformer", "tiny")
    dim, vocab = cfg.embed_dim, cfg.vocab_size
    assert counted("transformer") - counted("transformer", head=False) == 2 * T * dim * vocab
    assert (
        counted("transformer", embedding="one_hot") - counted("transformer")
        == 2 * (S + T) * dim * vocab
    )
    table = arch_zoo.count_params(arch_zoo.config("albert", "tiny")).by_part["embedding/table"]
    assert counted("albert", embedding="one_hot") - counted("albert") == 2 * (S + T) * table


def test_conventions_of_attention():
    cfg = arch_zoo.config("transformer", "tiny")
    layers, pair = cfg.num_encoder_layers, 4 * cfg.num_heads * cfg.head_dim
    masked = T**2 - T * (T + 1) // 2
    assert (
        counted("transformer") - counted("transformer", attention="causal")
        == layers * masked * pair
    )
    pairs = S**2 + T**2 + T * S
    assert (
        counted("transformer") - counted("transformer", attention="none") == layers * pairs * pair
    )
    # Without products of pairs and without the output layer, a forward pass is 2 N D, where each
    # token passes through one stack only.
    weights = {"encoder": 0, "decoder": 0}
    for part, count in arch_zoo.count_params(cfg).by_part.items():
        stack, _, layer = part.partition("/")
        if layer.endswith(("attention", "feed_forward")):
            norms = layers * cfg.embed_dim
            weights[stack] += count - norms
    cross = (
        layers * 2 * cfg.embed_dim * cfg.num_heads * cfg.head_dim
    )  # its keys and values are of the encoder's tokens
    expected = 2 * (S * (weights["encoder"] + cross) + T * (weights["decoder"] - cross))
    assert counted("transformer", attention="none", head=False) == expected


def test_conventions_of_experts():
    cfg = arch_zoo.config("switch", "tiny")
    batch_size, experts = 8, cfg.architecture.num_experts
    per_place = 4 * cfg.embed_dim * cfg.mlp_dim
    rows = {S: 2, T: 8}  # rows per group: of 1,024 tokens at most, and divides the batch
    places = {
        length: experts * int(rows[length] * length * 1.25 / experts) / rows[length]
        for length in (S, T)
    }
    sparse = cfg.num_encoder_layers // 2
    expected = sparse * sum((places[length] - length) * per_place for length in (S, T))
    assert (
        counted("switch", batch_size=batch_size, experts="padded") - counted("switch") == expected
    )
    assert counted("transformer", batch_size=batch_size, experts="padded") == counted("transformer")


def test_conventions_of_shared_weights():
    """A block that runs four times counts once; blocks that run once each count as before."""
    assert counted("transformer", sharing="weights") == counted("transformer")
    shared, head = (
        counted("universal", sharing="weights", head=False),
        counted("universal", head=False),
    )
    assert head == shared * arch_zoo.config("universal", "tiny").num_encoder_layers
    assert counted("albert", sharing="weights") < counted(
        "albert", options={"groups": 2}, sharing="weights"
    )


def test_conventions_that_do_not_exist_are_refused():
    with pytest.raises(arch_zoo.ConfigError, match=r"attention='half'.*full, causal, none"):
        arch_zoo.Convention(attention="half")  # pyright: ignore[reportArgumentType]


def test_base_sizes_are_those_of_the_sibling_study():
    """Narang et al. (2021) report 223M for the Transformer and GLU, 224M for LConv."""
    names = ("transformer", "glu", "lconv")
    millions = {
        name: arch_zoo.count_params(arch_zoo.config(name, "base")).total / 1e6 for name in names
    }
    assert round(millions["transformer"], 1) == round(millions["glu"], 1) == 222.9
    assert round(millions["lconv"]) == 223


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("transformer", "lconv") else pytest.param(n, marks=pytest.mark.slow)
        for n in arch_zoo.names()
    ],
)
def test_scanning_and_rematerialising_change_no_count(name):
    plain = arch_zoo.count_flops(arch_zoo.config(name, "nano"), 64, 32)
    assert arch_zoo.count_flops(arch_zoo.config(name, "nano", remat="full"), 64, 32) == plain
    try:
        scanned = arch_zoo.config(name, "nano-NL8", scan_layers=True)
        abstract_model(scanned)
    except arch_zoo.ConfigError:
        return
    assert arch_zoo.count_flops(scanned, 64, 32) == arch_zoo.count_flops(
        arch_zoo.config(name, "nano-NL8"), 64, 32
    )


# The dropless path is left out: it loops over blocks of tokens, and XLA counts the body of a loop
# once, whereas the accounting counts every iteration.
WITHOUT_DROPLESS = {name: {"eval_capacity_factor": 1.0} for name in ("switch", "moe")}


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "mini", "small", "base"])
@pytest.mark.parametrize(
    ("name", "family"),
    [(name, family) for name in arch_zoo.names() for family in arch_zoo.get(name).families],
)
def test_flops_agree_with_xla(name, family, size):
    """XLA counts the body of a loop once."""
    cfg = arch_zoo.config(name, size, family=family, **WITHOUT_DROPLESS.get(name, {}))
    spec = MODELS[family].batch_spec(1, *{"encoder_decoder": (S, T), "decoder_only": (S,)}[family])
    lowered = jax.jit(lambda model, batch: model.token_nll(batch)).lower(abstract_model(cfg), spec)
    analysis = lowered.cost_analysis()
    ours = accounting._traced(cfg, spec, train=False, loops_once=True).total()
    assert abs(analysis["flops"] / ours - 1) < tolerances.XLA_FLOPS, (analysis["flops"], ours)


ROWS, COLUMNS = jnp.ones((16, 8)), jnp.ones((16, 4))
LINEAR = jnp.ones((8, 8))


def scanned(a, b):
    """The recurrence h <- a h + b, all steps at once."""
    return jax.lax.associative_scan(
        lambda first, then: (first[0] * then[0], first[1] * then[0] + then[1]), (a, b)
    )


@pytest.mark.parametrize(
    ("function", "operands", "what"),
    [
        (lambda x: jax.scipy.linalg.solve_triangular(x, x), (LINEAR,), "triangular_solve"),
        (lambda x: jnp.linalg.inv(x), (LINEAR,), "lu"),
        (lambda x: jnp.fft.rfft(x).real, (LINEAR,), "fft"),
        (lambda k, v: k[:, :, None] * v[:, None], (ROWS, COLUMNS), "an outer product by *"),
        (
            lambda k, v: jnp.broadcast_to(k[:, :, None], (16, 8, 4)) * v[:, None],
            (ROWS, COLUMNS),
            "an outer product by *",
        ),
        (lambda x: jnp.cumsum(x, 0), (ROWS,), "cumsum"),
        (scanned, (ROWS, ROWS), "associative_scan"),
    ],
)
def test_work_that_would_be_missed_is_refused(function, operands, what):
    with pytest.raises(NotImplementedError, match=f"no FLOP count for {re.escape(what)} in here"):
        flops_of(function, *operands)


@pytest.mark.parametrize(
    ("function", "operands", "flops"),
    [
        (lambda k, v: jnp.einsum("LK,LV->LKV", k, v), (ROWS, COLUMNS), 2 * 16 * 8 * 4),
        (lambda x, y: x * y, (ROWS, ROWS), 0),
        (lambda x, y: x * y[:, None], (ROWS, ROWS[:, 0]), 0),
        (lambda x: jnp.cumsum(x, 0), (LINEAR,), 0),
        (lambda p, f: p[:, None] * f, (ROWS[:, 0], COLUMNS[0]), 0),  # as of rotary angles
        (lambda x: jnp.cumsum(x, 0), (ROWS.astype(jnp.int32),), 0),
    ],
)
def test_small_and_elementwise_work_is_free(function, operands, flops):
    assert flops_of(function, *operands) == flops


def flops_of(function, *operands) -> int:
    """The FLOPs of a function, where a residual stream has 64 numbers."""
    by_part = collections.Counter()
    jaxpr = jax.make_jaxpr(function)(*operands).jaxpr
    accounting._walk(jaxpr, "here", 1, by_part, stream=64, loops_once=False)
    return by_part.total()

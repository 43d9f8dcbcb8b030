"""Names, sizes and options: what can be built, and what is refused with a one-line reason."""

import dataclasses
import json
import subprocess
import sys

import pytest

import arch_zoo
from arch_zoo import sizes
from arch_zoo.__main__ import main


def test_sizes_are_those_of_the_published_model_cards():
    small, base, xxl = (sizes.dimensions(name) for name in ("small", "base", "xxl"))
    assert (
        small.num_encoder_layers,
        small.embed_dim,
        small.mlp_dim,
        small.num_heads,
        small.head_dim,
    ) == ((6, 512, 2048, 8, 64))
    assert (base.num_decoder_layers, base.embed_dim, base.mlp_dim, base.num_heads) == (
        12,
        768,
        3072,
        12,
    )
    assert (xxl.mlp_dim, xxl.num_heads, xxl.head_dim) == (65536, 128, 128)


def test_operators_change_one_dimension_each():
    changed = sizes.dimensions("base-EL24-DL3-DM512-FF2048-NH8-KV32-SH-SKV")
    assert dataclasses.astuple(changed) == (24, 3, 512, 2048, 8, 32, True, True)
    deep = sizes.dimensions("tiny-NL8")
    assert (deep.num_encoder_layers, deep.num_decoder_layers) == (8, 8)


@pytest.mark.parametrize(
    ("size", "names"),
    [
        ("huge", "huge"),
        ("base-XX2", "XX2"),
        ("base-NL", "NL"),
        ("base-NL0", "NL"),
        ("base-NL2-EL3", "EL3"),
        ("base-NL-2", "NL"),
        ("base-SKV2", "SKV"),
        ("base-", "''"),
        ("", "''"),
        ("base-nl24", "nl24"),
    ],
)
def test_nonsense_sizes_are_refused(size, names):
    with pytest.raises(arch_zoo.ConfigError, match=names) as caught:
        sizes.dimensions(size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "key"),
    [
        ("transfomer", {}, "transfomer"),
        ("transformer", {"num_expert": 3}, "num_expert"),
        ("transformer", {"variant": "geglu"}, "variant"),
        ("transformer", {"num_heads": "8"}, "num_heads"),
        ("transformer", {"num_heads": True}, "num_heads"),
        ("transformer", {"num_heads": 0}, "num_heads"),
        ("transformer", {"dropout_rate": 1.0}, "dropout_rate"),
        ("transformer", {"dropout_rate": float("nan")}, "dropout_rate"),
        ("transformer", {"dtype": "float16"}, "dtype"),
        ("transformer", {"vocab_size": 2}, "vocab_size"),
        ("glu", {"variant": "tanh"}, "variant"),
        ("switch", {"variant": "fedus"}, "variant='fedus' is unknown; known: narang"),
        ("switch", {"variant": ["narang"]}, "variant"),
        ("evolved", {"size_rule": "equal"}, "size_rule='equal': allowed are paper, matched"),
        ("evolved", {"size_rule": "matched", "mlp_dim": 64}, "mlp_dim=64: size_rule='matched'"),
        ("lconv", {"widths": (3, 4)}, "widths"),
        ("lconv", {"widths": ()}, "widths"),
        ("lconv", {"widths": 3}, "widths"),
        ("lconv", {"form": "torch"}, "form"),
    ],
)
def test_bad_options_are_refused(name, overrides, key):
    with pytest.raises(arch_zoo.ConfigError, match=key) as caught:
        arch_zoo.config(name, "nano", **overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", arch_zoo.names())
def test_a_configuration_survives_json(name):
    cfg = arch_zoo.config(name, "tiny-NL6", dropout_rate=0.1, vocab_size=100)
    again = arch_zoo.config_from_dict(json.loads(json.dumps(cfg.to_dict())))
    assert again == cfg and hash(again) == hash(cfg)


def test_an_override_is_taken_as_it_stands():
    assert arch_zoo.config("glu", "base").mlp_dim == 2048
    assert arch_zoo.config("glu", "base", mlp_dim=3072).mlp_dim == 3072
    assert arch_zoo.config("glu", "base-FF6144").mlp_dim == 4096, (
        "an operator names the vanilla dimension"
    )


@pytest.mark.parametrize("name", arch_zoo.names())
def test_a_variant_is_a_name_for_settings(name):
    """Only its settings appear in the configuration, and every variant can be built."""
    for variant, settings in arch_zoo.get(name).variants.items():
        named = arch_zoo.config(name, "tiny", variant=variant)
        assert named == arch_zoo.config(name, "tiny", **settings)
        assert arch_zoo.config_from_dict(named.to_dict()) == named


def test_shared_heads_and_tied_values_drop_their_projections():
    plain, tied, shared = (
        arch_zoo.count_params(arch_zoo.config("transformer", size)).total
        for size in ("tiny", "tiny-SKV", "tiny-SH")
    )
    attention_layers, dim, joined, head = 4 + 2 * 4, 256, 4 * 32, 32
    assert plain - tied == attention_layers * dim * joined
    assert plain - shared == attention_layers * 2 * dim * (joined - head)


def test_list_is_the_registry(capsys):
    assert main(["list", "--format", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(arch_zoo.names())
    assert rows["universal"]["variants"] == {"narang": {"num_steps": 24}}
    assert set(rows["mos"]["variants"]) == {"scaled", "unscaled"}
    assert set(rows["glu"]["variants"]) == {"glu", "geglu", "swiglu", "reglu"}
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert "Transformer" in said and "narang:" in said


@pytest.mark.slow
def test_show_takes_a_variant_and_a_size_rule(capsys):
    def total(*options):
        assert main(["show", "universal", "--size", "nano", "--format", "json", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        return found["config"], found["parameters"]["non_embedding"]

    plain, narang, matched = total(), total("--variant", "narang"), total("--size-rule", "matched")
    assert plain[0]["options"]["num_steps"] == 0 and narang[0]["options"]["num_steps"] == 24
    assert matched[0]["mlp_dim"] > 2 * plain[0]["mlp_dim"] and matched[1] > 1.9 * plain[1]


def test_importing_the_zoo_needs_no_jax():
    """`list` should start at once; JAX is imported when the first model is built."""
    check = "import sys, arch_zoo; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_show_prints_parts_that_add_up(capsys):
    assert main(["show", "universal", "--size", "micro", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        sum(part["parameters"] for part in found["parts"].values()) == found["parameters"]["total"]
    )
    assert sum(part["flops"] for part in found["parts"].values()) == found["flops"]["forward"]
    cfg = arch_zoo.config("universal", "micro")
    assert found["state"] == arch_zoo.count_state(cfg, 512, 114) > 0
    assert main(["show", "universal", "--size", "micro"]) == 0
    said = capsys.readouterr().out
    assert (
        f"{found['parameters']['total']:,}" in said and f"keeps {found['state']:,} numbers" in said
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["show", "transfomer"], "transfomer"),
        (["show", "transformer", "--size", "bass"], "bass"),
        (["show", "transformer", "--input-length", "0"], "input_length"),
        (["show", "transformer", "--vocab-size", "x"], "vocab-size"),
        (["show", "transformer", "--sise", "base"], "sise"),
        (["show"], "architecture"),
        (["lst"], "lst"),
        ([], "verb"),
    ],
)
def test_a_mistyped_command_gives_one_line_and_exit_code_2(arguments, names, capsys):
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and names in error
    assert error.count("\n") == 1 and error.startswith("error: ")

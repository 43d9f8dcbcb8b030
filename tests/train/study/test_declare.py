"""How studies are declared.

What the words of a declaration mean, and that presets are what their docstrings say.
"""

import collections
import dataclasses
import json
import math
from pathlib import Path

import pytest

import arch_zoo
from arch_zoo import sizes
from configs import presets
from configs.studies import cpu
from train.records import InputError
from train.study import declare
from train.study.config import StudyConfig, from_dict, to_dict
from train.study.directory import load

PLAIN = declare.grid(presets.cpu, size=("micro", "nano"), architecture=("transformer", "lconv"))


def test_a_grid_is_a_product_with_the_last_axis_fastest():
    assert [(cell.size, cell.architecture) for cell in PLAIN] == [
        ("micro", "transformer"),
        ("micro", "lconv"),
        ("nano", "transformer"),
        ("nano", "lconv"),
    ]


def test_exclusions_and_overrides_reach_what_matches_and_nothing_else():
    left = declare.exclude(PLAIN, size="nano", architecture=("lconv", "mos"))
    assert [cell.run_id for cell in left] == [
        "transformer-micro-s0",
        "lconv-micro-s0",
        "transformer-nano-s0",
    ]
    changed = declare.override(
        PLAIN, {"pretrain.optimizer.learning_rate": 0.5}, architecture="lconv"
    )
    before = [cell.pretrain.optimizer.learning_rate for cell in PLAIN]
    after = [cell.pretrain.optimizer.learning_rate for cell in changed]
    assert after == [before[0], 0.5, before[2], 0.5]
    with pytest.raises(InputError, match="cells have no field 'architektur'; known: architecture"):
        declare.exclude(PLAIN, architektur="lconv")
    with pytest.raises(InputError, match="set.pretrain: unknown key 'batch'"):
        declare.override(PLAIN, {"pretrain.batch": 1})


def test_seeds_are_whole_studies_one_after_the_other():
    many = declare.seeds(PLAIN, 3)
    assert [cell.seed for cell in many] == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize(
    ("size", "operator", "value", "expected"),
    [
        ("base", "NL", 24, "base-NL24"),
        ("base-NL24", "NL", 6, "base-NL6"),
        ("base-NL24-SKV", "DM", 512, "base-NL24-SKV-DM512"),
        ("base", "W", 1280, "base-DM1280-FF5120-NH20"),  # 12 heads of 64 become 20 of 64
        ("micro", "W", 112, "micro-DM112-FF448-KV56"),  # 32 does not divide 112: two heads of 56
    ],
)
def test_scaling_operators(size, operator, value, expected):
    assert declare.scale(size, operator, value) == expected
    sizes.dimensions(expected)


@pytest.mark.slow
def test_matched_cells_cost_the_same():
    deep = declare.ladder(PLAIN[:2], "depth", "NL", (4,))
    wide = declare.matched(deep, "width", "W", "micro", grain=8, vocab_size=2048)
    for one, other in zip(deep, wide, strict=True):
        assert (other.protocol, other.architecture) == ("width", one.architecture)
        ratio = declare.cost(other, "flops", 2048) / declare.cost(one, "flops", 2048)
        assert 0.93 < ratio < 1.07  # a step of the width changes the FLOPs by 14 %
    (same,) = declare.matched(deep[:1], "ff", "FF", "micro", by="params", grain=16, vocab_size=2048)
    assert declare.cost(same, "params", 2048) == pytest.approx(
        declare.cost(deep[0], "params", 2048), rel=0.02
    )


def test_costs_that_cannot_be_matched_are_refused():
    with pytest.raises(
        InputError, match="transformer-nano-s0: no NL on micro in steps of 4 comes within 20 %"
    ):
        declare.matched(PLAIN[2:3], "depth", "NL", "micro", grain=4, vocab_size=2048)


def test_token_budgets_become_steps():
    step = 16 * (64 + 16)  # sequences, and tokens of each
    assert {c.pretrain.steps for c in declare.fixed_tokens(PLAIN, 1e6)} == {math.ceil(1e6 / step)}
    micro, _, nano, _ = declare.tokens_per_parameter(PLAIN, 20, vocab_size=2048)
    for cell in (micro, nano):
        params = arch_zoo.count_params(declare.model(cell, 2048)).non_embedding
        assert cell.pretrain.steps == math.ceil(20 * params / step)
    for cell in declare.isoflop(PLAIN[::2], (1e11, 2e11), 2048):
        spent = 3 * declare.cost(cell, "flops", 2048) * 16 * cell.pretrain.steps
        budget = {"iso1e11": 1e11, "iso2e11": 2e11}[cell.protocol]
        assert budget <= spent < budget + 3 * declare.cost(cell, "flops", 2048) * 16


def test_hashes_are_stable_and_see_defaults_but_not_logistics(monkeypatch):
    cell = PLAIN[0]
    before = declare.cell_hash(cell, 2048)
    assert before == declare.cell_hash(dataclasses.replace(cell), 2048)
    rare = dataclasses.replace(
        cell, pretrain=dataclasses.replace(cell.pretrain, checkpoint_every=7), study="other"
    )
    assert declare.cell_hash(rare, 2048) == before
    assert declare.cell_hash(cell, 4096) != before
    monkeypatch.setitem(
        sizes.SIZES, "micro", dataclasses.replace(sizes.SIZES["micro"], mlp_dim=260)
    )
    assert declare.cell_hash(cell, 2048) != before


TWELVE = {
    *("transformer", "evolved", "universal", "switch", "performer", "funnel"),
    *("albert", "mos", "glu", "lconv", "dconv", "mixer"),
}
PRESETS = ["cpu", "depth", "equal_flops", "gpu", "isoflop", "paper", "protocols", "seeds", "width"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_study_of_cells_that_exist(name):
    declared = load(name)
    assert declared.name == name
    vocab = declare.PYTHON_VOCABULARY if declared.prepare else declare.T5_VOCABULARY
    for cell in declared.cells:
        declare.model(cell, vocab)
    assert from_dict(StudyConfig, to_dict(declared)) == declared


def test_the_paper_preset_is_the_study_of_2207_10551():
    declared = load("paper")
    assert len(declared.cells) > 100
    assert {cell.architecture for cell in declared.cells} == TWELVE
    assert {cell.size for cell in declared.cells if not cell.protocol} == {
        "tiny",
        "mini",
        "small",
        "base",
        "large",
        "xl",
    }
    assert {(c.pretrain.steps, c.finetune.steps) for c in declared.cells if c.finetune} == {
        (524_288, 100_000)
    }
    assert {cell.protocol for cell in declared.cells} == {"", "depth", "width"}


def test_the_cpu_preset_is_the_twelve_of_the_paper_at_four_sizes():
    cells_of = collections.Counter(cell.architecture for cell in load("cpu").cells)
    assert cells_of == dict.fromkeys(TWELVE, 4)


def test_a_cell_says_how_its_model_is_made():
    """By the name of a variant and a size rule; both change the model and therefore its hash."""
    (cell,) = declare.grid(presets.cpu, architecture=("switch",), size=("micro-NL4",))
    named = declare.override((cell,), {"model.variant": "narang"})[0]
    assert declare.model(named, 2048).to_dict()["options"]["num_experts"] == 32
    (plain,) = declare.grid(presets.cpu, architecture=("evolved",), size=("micro",))
    (matched,) = declare.override((plain,), {"model.size_rule": "matched"})
    assert declare.model(matched, 2048).mlp_dim != declare.model(plain, 2048).mlp_dim
    assert declare.cell_hash(matched, 2048) != declare.cell_hash(plain, 2048)
    (wrong,) = declare.override((plain,), {"model.variant": "narang"})
    with pytest.raises(
        arch_zoo.ConfigError, match="evolved: variant='narang' is unknown; known: none"
    ):
        declare.model(wrong, 2048)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["width", "equal_flops", "protocols"])
def test_the_widths_written_down_are_the_matched_ones(name):
    from configs.studies import depth, equal_flops, protocols, width

    grain, vocab = (
        (8, declare.PYTHON_VOCABULARY) if name == "protocols" else (64, declare.T5_VOCABULARY)
    )
    if name == "width":
        expected, layers, preset, base = (
            {"transformer": width.WIDTHS},
            depth.LAYERS,
            presets.t5,
            "base",
        )
    elif name == "equal_flops":
        others = {key: value for key, value in equal_flops.WIDTHS.items() if key != "transformer"}
        assert equal_flops.WIDTHS["transformer"] == width.WIDTHS
        expected, layers, preset, base = others, depth.LAYERS, presets.t5, "base"
    else:
        expected, layers, preset, base = protocols.WIDTHS, protocols.LAYERS, presets.cpu, "micro"
    for architecture, widths in expected.items():
        plain = preset(architecture, base)
        deep = declare.ladder((plain,), "depth", "NL", layers)
        for cell, dim in zip(deep, widths, strict=True):
            target = declare.cost(cell, "flops", vocab)
            off = [
                abs(
                    math.log(
                        declare.cost(
                            dataclasses.replace(plain, size=declare.scale(base, "W", near)),
                            "flops",
                            vocab,
                        )
                        / target
                    )
                )
                for near in (dim - grain, dim, dim + grain)
                if near
            ]
            assert min(off) == off[-2] < math.log(1.2), (architecture, dim, off)


PORIAN = (
    lambda n, d: 0.0047 * (108e6 / n) ** (1 / 3),
    lambda n, d: 327680 * (n / 108e6) ** (2 / 3),
)
STEP_LAW = (lambda n, d: 1.79 * n**-0.713 * d**0.307, lambda n, d: 0.58 * d**0.571)


@pytest.mark.parametrize(
    ("name", "head", "rate", "tokens_of_batch"),
    [("porian", 1, *PORIAN), ("step_law", 0, *STEP_LAW)],
)
def test_a_rule_sets_rate_and_batch_and_keeps_the_tokens(name, head, rate, tokens_of_batch):
    cells = declare.grid(presets.cpu_text, size=("base",), architecture=("llama", "transformer"))
    with pytest.raises(InputError, match=f"name = 'adafactor': the rule {name} is for adamw"):
        declare.by_rule(cells, name)
    cells = declare.override(cells, {"pretrain.optimizer.name": "adamw", "pretrain.steps": 500_000})
    for before, after in zip(cells, declare.by_rule(cells, name), strict=True):
        counted = arch_zoo.count_params(declare.model(before, declare.T5_VOCABULARY))
        n = counted.non_embedding + head * 768 * declare.T5_VOCABULARY
        d = 500_000 * 16 * 128
        stage = after.pretrain
        assert stage.optimizer.learning_rate == pytest.approx(rate(n, d))
        assert stage.batch_size == round(tokens_of_batch(n, d) / 128) > 16
        assert stage.steps * stage.batch_size * 128 == pytest.approx(d, rel=1e-3)
    with pytest.raises(InputError, match="rule = 'kaplan' is not one of porian, step_law"):
        declare.by_rule(cells, "kaplan")


def test_the_cpu_preset_has_the_best_rates_of_its_sweep():
    root = Path(__file__).parents[3]
    content = json.loads((root / presets.CPU_RATES).read_text())
    assert load("cpu").tuning == presets.CPU_RATES
    assert content["sweep"].endswith("lr_sweep")
    swept = {(one["architecture"], one["size"]): one for one in content["cells"]}
    assert {name for name, _ in swept} == set(cpu.ARCHITECTURES)
    for (architecture, size), one in swept.items():
        rate = presets.cpu(architecture, size).pretrain.optimizer.learning_rate
        if one["best_rate"]:
            assert rate == pytest.approx(one["best_rate"], rel=6e-3)
        assert 0.02 < rate < 0.2
    vanilla = presets.cpu("transformer", "nano").pretrain.optimizer.learning_rate
    for architecture, family, expected in (
        ("llama", "encoder_decoder", "transformer"),
        ("lconv", "decoder_only", "lconv"),
    ):
        other = presets.cpu(architecture, "nano", family=family).pretrain.optimizer.learning_rate
        assert other == presets.cpu(expected, "nano").pretrain.optimizer.learning_rate
    assert vanilla != presets.cpu("lconv", "nano").pretrain.optimizer.learning_rate

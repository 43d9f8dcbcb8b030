"""Best rates, regrets, exponents and the expected best of n tries, on sweeps of known truth."""

import dataclasses
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import arch_zoo
from configs import presets
from eval.__main__ import main
from eval.analyses import everything, tuning, tuning_runs
from eval.analyses.settings import Settings
from eval.data.study import read_study
from eval.report import figures, summary, tables
from eval.report.grid import DASH, number
from eval.report.page import render, sections
from eval.simulation.sweeps import RATES, Sweep, study
from tests.eval import run_directories
from train.records import InputError
from train.study import declare
from train.study.directory import load

EXACT = Sweep(steep=0.0, noise=0.0, common=0.3)
RATE = "pretrain.optimizer.learning_rate"


def test_a_parabola_gives_its_own_optimum_and_regrets():
    (curve,) = tuning.curves(EXACT.runs(0))
    assert curve.best == pytest.approx(0.4) and curve.problem == ""
    for rate in (*RATES, 0.33, 0.4):
        assert curve.regret(rate).value == pytest.approx(EXACT.regret(rate), abs=1e-9)
    between = 0.5 * (EXACT.regret(0.67) + EXACT.regret(1.0))  # on a line between the two
    assert curve.regret(math.sqrt(0.67)).value == pytest.approx(between, rel=1e-6)
    assert math.isnan(curve.regret(1.2).value) and "outside" in curve.regret(1.2).note


def test_the_noise_is_what_seeds_and_rates_leave():
    runs = Sweep(noise=0.05, common=1.0).runs(1, seeds=4)
    (curve,) = tuning.curves(runs)
    near = runs[runs["rate"].isin([curve.rates[i] for i in curve.near])]
    levels = [near[c].to_numpy()[:, None] == near[c].unique() for c in ("rate", "seed")]
    design = np.column_stack(levels).astype(float)
    rest = near["loss"].to_numpy() - design @ np.linalg.lstsq(design, near["loss"], rcond=None)[0]
    df = len(near) - np.linalg.matrix_rank(design)
    assert curve.df == df
    assert curve.noise == pytest.approx(math.sqrt(rest @ rest / df))


@pytest.mark.parametrize("best", [0.15, 1.3])
def test_a_lowest_loss_at_the_edge_leaves_the_best_rate_unknown(best):
    (curve,) = tuning.curves(Sweep(best=best, noise=0.001).runs(0))
    assert curve.problem == tuning.EDGE and math.isnan(curve.best)
    found = curve.regret(0.45)
    assert found.value == pytest.approx(max(curve.losses[2] - min(curve.losses), 0))
    assert found.high == math.inf and found.note == tuning.EDGE


def test_one_seed_has_no_intervals():
    (curve,) = tuning.curves(Sweep().runs(0, seeds=1))
    assert curve.best > 0 and np.isnan(curve.interval()).all()
    found = curve.regret(0.3)
    assert found.value > 0 and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.slow
@pytest.mark.parametrize(
    "truth", [Sweep(), Sweep(noise=0.03), Sweep(best=0.55), Sweep(steep=2.0), Sweep(steep=0.0)]
)
def test_intervals_cover_what_they_say(truth):
    """The parabola is wrong unless `steep` is 0, so its error is part of the intervals."""
    studies = 150
    covered, best = dict.fromkeys(RATES, 0), []
    for seed in range(studies):
        (curve,) = tuning.curves(truth.runs(seed))
        for rate in RATES:
            found = curve.regret(rate)
            covered[rate] += found.low <= truth.regret(rate) + 1e-12 <= found.high
        if not curve.problem:
            low, high = curve.interval()
            best.append(low <= truth.best <= high)
    least = stats.binom.ppf(0.001, studies, 0.93)
    assert min(covered.values()) >= least and sum(best) >= least * len(best) / studies
    assert len(best) > 0.9 * studies


def test_the_exponent_of_the_best_rate_on_size():
    sizes = {"nano": 5e4, "micro": 2e5, "centi": 8e5}
    runs = [
        Sweep(best=0.5 * (n / 5e4) ** -0.19, steep=0, noise=0.0).runs(0, size=size, params=n)
        for size, n in sizes.items()
    ]
    one = tuning.exponents(tuning.curves(pd.concat(runs))).iloc[0]
    assert (one["exponent"], one["rates"]) == (pytest.approx(-0.19), 3)
    assert math.isnan(one["tokens_exponent"])
    alone = tuning.exponents(tuning.curves(runs[0])).iloc[0]
    assert math.isnan(alone["exponent"]) and "two sizes" in alone["note"]
    noisy = [
        Sweep(best=0.5 * (n / 5e4) ** -0.19, noise=0.01).runs(i, size=size, params=n)
        for i, (size, n) in enumerate(sizes.items())
    ]
    row = tuning.exponents(tuning.curves(pd.concat(noisy))).iloc[0]
    assert row["ci_low"] < -0.19 < row["ci_high"]


def test_cells_under_several_protocols_and_lengths_are_told_apart():
    """The best rate is .5 N^-.2 D^-.1 with Adam, and the same at all sizes with mup."""
    truths = {
        (protocol, params, tokens): 0.5 * ((params / 5e4) ** -0.2 if protocol == "adam" else 1)
        * (tokens / 1e6) ** -0.1
        for protocol in ("adam", "mup")
        for params in (5e4, 2e5)
        for tokens in (1e6, 4e6)
    }  # fmt: skip
    runs = pd.concat(
        Sweep(best=best, steep=0, noise=1e-4, common=0.0)
        .runs(seed, size=f"{params:g}", params=params)
        .assign(protocol=protocol, tokens=tokens)
        for seed, ((protocol, params, tokens), best) in enumerate(truths.items())
    )
    found = tuning.curves(runs)
    assert {(c.protocol, c.params, c.tokens) for c in found} == set(truths)
    table = tuning.exponents(found).set_index("protocol")
    for protocol, exponent in (("adam", -0.2), ("mup", 0.0)):
        row = table.loc[protocol]
        assert row["exponent"] == pytest.approx(exponent, abs=0.01)
        assert row["tokens_exponent"] == pytest.approx(-0.1, abs=0.01) and row["rates"] == 4
        assert row["ci_low"] < exponent < row["ci_high"]
    assert table.loc["", "architecture"] == tuning.ALL and table.loc["", "rates"] == 8
    assert table.loc["", "exponent"] == pytest.approx(-0.1, abs=0.02)  # between the two
    assert len(tuning.expected_best(runs).groupby(["protocol", "size", "tokens"])) == 8


def test_cells_are_compared_at_their_own_best_rates():
    """The mos cell learns at a lower rate than glu, and would be worse at glu's best one."""
    parts = {
        ("glu", "adam"): (Sweep(best=0.45, common=0.0), 0.0),
        ("glu", "muon"): (Sweep(best=0.67, common=0.0), -0.1),
        ("mos", "adam"): (Sweep(best=0.3, common=0.0), -0.05),
    }
    runs = pd.concat(
        truth.runs(seed, architecture=name).assign(
            protocol=protocol, loss=lambda t, o=over: t.loss + o
        )
        for seed, ((name, protocol), (truth, over)) in enumerate(parts.items())
    )
    table = tuning.at_best(runs).set_index(["architecture", "protocol"])
    assert table["rate"].tolist() == [0.45, 0.67, 0.3]
    assert math.isnan(table.loc[("glu", "adam"), "difference"])
    seeds = runs.set_index(["architecture", "protocol", "rate", "seed"])["loss"].sort_index()
    for cell, expected in ((("glu", "muon"), -0.1), (("mos", "adam"), -0.05)):
        row = table.loc[cell]
        pairs = seeds[(*cell, row["rate"])] - seeds[("glu", "adam", 0.45)]
        assert row["difference"] == pytest.approx(pairs.mean())
        assert row["difference"] == pytest.approx(expected, abs=0.04)
        half = stats.t.ppf(0.975, 2) * pairs.std() / math.sqrt(3)
        assert row["ci_high"] - row["difference"] == pytest.approx(half)
    turned = tuning.at_best(runs, "mos").set_index(["architecture", "protocol"])
    row = turned.loc[("glu", "adam")]
    assert row["difference"] == pytest.approx(-table.loc[("mos", "adam"), "difference"])
    assert len(tuning.at_best(runs[:0])) == 0


def test_the_published_runs_of_step_law_give_its_exponents():
    """Li et al. (2025, arXiv 2503.04715): rate 1.79 N^-.713 D^.307, batch .58 D^.571 tokens.

    The table has the lowest loss of the released runs at each rate and each batch size.
    """
    table = pd.read_csv(Path(__file__).with_name("step_law.csv"))
    for swept, params, tokens in (("rate", -0.713, 0.307), ("batch", None, 0.571)):
        part = table[table["swept"] == swept].rename(columns={"value": "rate"})
        part = part.assign(architecture="llama", size=part["params"].astype(str), seed=0)
        found = tuning.curves(part)
        assert len(found) == 17 and not any(curve.problem for curve in found)
        row = tuning.exponents(found).iloc[0]
        assert row["tokens_low"] < tokens < row["tokens_high"]
        if params is not None:
            assert row["ci_low"] < params < row["ci_high"]


def test_the_expected_best_of_n_tries_is_the_mean_over_all_of_them():
    runs = Sweep().runs(2, rates=RATES[:3], seeds=2)
    table = tuning.expected_best(runs)
    halves = [runs.loc[runs["seed"] == s, "loss"] for s in (0, 1)]
    for n in (1, 2, 3):
        each = [np.mean([min(tries) for tries in itertools.product(h, repeat=n)]) for h in halves]
        row = table.iloc[n - 1]
        assert row["loss"] == pytest.approx(np.mean(each))
        half = stats.t.ppf(0.975, 1) * abs(each[0] - each[1]) / 2
        assert (row["ci_high"] - row["ci_low"]) / 2 == pytest.approx(half)


@pytest.mark.slow
@pytest.mark.parametrize("truth", [Sweep(), Sweep(noise=0.03), Sweep(noise=0.005, common=0.05)])
def test_intervals_of_the_expected_best_cover_what_they_say(truth):
    """The truth: the mean of many other seeds."""
    studies = 200
    expected = tuning.expected_best(truth.runs(10_000, seeds=4000))["loss"].to_numpy()
    covered = np.zeros(len(expected))
    for seed in range(studies):
        found = tuning.expected_best(truth.runs(seed))
        low, high = found["ci_low"].to_numpy(), found["ci_high"].to_numpy()
        covered += (low <= expected) & (expected <= high)
    least, most = stats.binom.ppf([0.001, 0.999], studies, 0.95)
    assert (covered >= least).all() and (covered <= most).all()


def test_a_sweep_varies_the_rate_alone():
    runs = Sweep().runs(0)
    with pytest.raises(InputError, match="transformer at nano: two runs with rate 0.2 and seed 0"):
        tuning.curves(pd.concat([runs, runs.iloc[[0]]]))


def test_a_rate_that_diverged_is_left_out_and_named():
    runs = EXACT.runs(0)
    lost = runs["loss"].where((runs["rate"] != 1.0) | (runs["seed"] != 1))
    for less in (runs.assign(loss=lost), runs[lost.notna()]):
        (curve,) = tuning.curves(less)
        assert curve.rates == RATES[:-1] and curve.best == pytest.approx(0.4)
        (row,) = tuning.optima([curve]).to_dict("records")
        assert row["note"] == "a seed has no loss at 1"
        assert row["ci_low"] == pytest.approx(0.4) == row["ci_high"]
    with pytest.raises(InputError, match="no rate has a loss for every seed"):
        tuning.curves(runs.assign(loss=runs["loss"].where(runs["seed"] == 0)))


def _table(path, **more):
    names = {"params": "params_non_embedding", "rate": "learning_rate", "loss": "upstream_nll"}
    sizes = [("nano", 5e4, 0.5), ("centi", 8e5, 0.3)]
    parts = [
        Sweep(best=best, steep=0, noise=1e-4).runs(0, size=size, params=n)
        for size, n, best in sizes
    ]
    table = pd.concat(parts).rename(columns=names).assign(**more)
    table.to_csv(path, index=False)
    return path


def test_the_verb_prints_and_writes_what_a_study_is_tuned_by(tmp_path, capsys):
    path, out = _table(tmp_path / "sweep.csv"), tmp_path / "tuning.json"
    assert main(["tune", str(path), "--used", "0.3", "--out", str(out), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["best_rate"] for row in found["best_rates"]] == pytest.approx([0.5, 0.3], rel=1e-2)
    assert {row["rate"] for row in found["regrets"]} == {0.3}
    cells = declare.grid(
        presets.cpu, architecture=("transformer",), size=("nano", "centi", "micro")
    )
    rates = [c.pretrain.optimizer.learning_rate for c in declare.tuned(cells, out)]
    assert rates[:2] == pytest.approx([0.5, 0.3], rel=1e-2)
    model = declare.model(cells[2], declare.PYTHON_VOCABULARY)
    params = arch_zoo.count_params(model).non_embedding
    exponent = math.log(0.3 / 0.5) / math.log(8e5 / 5e4)
    n, rate = min((5e4, 0.5), (8e5, 0.3), key=lambda one: abs(math.log(params / one[0])))
    assert rates[2] == pytest.approx(rate * (params / n) ** exponent, rel=2e-2)
    glu = declare.grid(presets.cpu, architecture=("glu",), size=("nano",))
    with pytest.raises(InputError, match=r"tuning.json: no best rate of glu .* at nano"):
        declare.tuned(glu, out)
    (other,) = declare.tuned(glu, out, otherwise="transformer")
    assert other.pretrain.optimizer.learning_rate == pytest.approx(0.5, rel=1e-2)
    out.write_text("{}")
    with pytest.raises(InputError, match="setting = None: not a file of `eval tune`"):
        declare.tuned(cells, out)


def test_bad_rows_and_options_are_refused(tmp_path, capsys):
    path = _table(tmp_path / "sweep.csv", learning_rate=0.0)
    with pytest.raises(InputError, match=r"row 2.*: learning_rate = 0.0 is not above 0"):
        tuning_runs.of_table(path)
    assert main(["tune", str(tmp_path), "--loss", "nll"]) == 2
    assert "for a table, not for a directory" in capsys.readouterr().err


def test_a_study_of_a_sweep_is_read_from_its_records(tmp_path):
    root = run_directories.write_study(tmp_path, architectures=("glu",), seeds=2)
    rates = {}
    for path in sorted(root.glob("*/config.json")):
        config = json.loads(path.read_text())
        stage = config.setdefault("pretrain", {})
        rates[config["run_id"]] = 0.1 * (1 + config["seed"])
        stage["optimizer"] = {"learning_rate": rates[config["run_id"]]}
        path.write_text(json.dumps(config))
    runs = tuning_runs.of_directory(root)
    assert sorted(runs["rate"].unique()) == [0.1, 0.2] and len(runs) == len(rates)
    assert set(runs["family"]) <= {"encoder_decoder", ""}


def test_a_sweep_names_its_values_in_the_runs():
    cells = declare.grid(presets.cpu, architecture=("glu", "mos"), size=("nano",))
    swept = declare.sweep(cells, {RATE: (0.2, 0.3), "pretrain.steps": (100,)})
    assert [c.run_id for c in swept[:2]] == [
        "glu-nano-learning_rate0.2-steps100-s0",
        "glu-nano-learning_rate0.3-steps100-s0",
    ]
    assert len({c.run_id for c in swept}) == 4
    assert [c.pretrain.optimizer.learning_rate for c in swept] == [0.2, 0.3, 0.2, 0.3]
    assert {c.pretrain.steps for c in swept} == {100}


def test_the_report_of_a_sweep_shows_its_curves():
    truths = {("glu", "nano"): Sweep(best=0.5), ("glu", "micro"): Sweep(best=0.4)}
    swept = study(truths)
    analysis = everything.analyse(swept)
    found = analysis.results["best_rates"].set_index("size")["best_rate"]
    assert found["nano"] == pytest.approx(0.5, rel=0.2) and found["micro"] < found["nano"]
    (panel,) = figures.draw_more(analysis)["tuning"].axes
    points = {bars.get_label(): bars.lines[0].get_data() for bars in panel.containers}
    runs = swept.runs.merge(swept.recipes, on="run_id")
    for size, (x, y) in points.items():
        means = runs[runs["size"] == size].groupby("learning_rate")["upstream_nll"].mean()
        np.testing.assert_allclose(np.asarray(x, float), means.index)
        np.testing.assert_allclose(np.asarray(y, float), means.astype(float))
    tries = figures.draw_more(analysis)["expected_best"].axes
    expected = analysis.results["expected_best"].groupby("size", sort=False)
    for panel, (size, part) in zip(tries, expected, strict=True):
        assert panel.get_title(loc="left") == size
        (line,) = panel.lines
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), part["loss"])
    assert "Best learning rates" in render(analysis)
    (page,) = [one for one in sections.sections(analysis) if one.anchor == "rates"]
    assert len(page.pictures) == 2


def test_a_sweeps_report_compares_cells_at_their_best_rates():
    truths = {
        ("glu", "nano"): Sweep(best=0.67, noise=1e-4),
        ("glu", "micro"): Sweep(best=0.45, noise=1e-4),
        ("mos", "nano"): Sweep(best=0.3, noise=1e-4),
    }
    swept = study(truths)
    best = tuning_runs.at_best(swept)
    plain = best.runs[best.runs["protocol"] == ""].merge(best.recipes, on="run_id")
    rates = plain.groupby(["architecture", "size"])["learning_rate"].unique()
    for cell, truth in truths.items():
        assert rates[cell].tolist() == [truth.best]
    assert len(plain) == 9 and len(best.runs) == len(swept.runs)
    others = best.runs["protocol"] != ""
    assert (best.runs["protocol"] == swept.runs["protocol"])[others].all()
    assert best.warnings[-1] == tuning_runs.AT_BEST
    assert tuning_runs.at_best(best) is best  # it has plain runs
    analysis = everything.analyse(swept)
    assert len(analysis.runs.main().frame) == 9
    assert len(analysis.sweep) == 3  # the curves still have every rate


def test_runs_that_differ_in_more_than_the_rate_are_no_sweep():
    swept = study({("glu", "nano"): Sweep()})
    rate = swept.recipes["learning_rate"]
    batches = swept.recipes.assign(batch_size=1000 * rate)
    assert tuning_runs.curves_of(dataclasses.replace(swept, recipes=batches), 0.95) == []
    mixed = swept.recipes.assign(batch_size=16 + 16.0 * (rate == 1.0))
    (curve,) = tuning_runs.curves_of(dataclasses.replace(swept, recipes=mixed), 0.95)
    assert curve.rates == RATES[:-1]


def test_the_study_of_rates_varies_nothing_but_rates_and_seeds():
    cells = load("lr_sweep").cells
    assert len({cell.run_id for cell in cells}) == len(cells) == 26 * 5 * 3
    assert {cell.finetune for cell in cells} == {None}
    plain = [
        dataclasses.replace(declare.with_settings(cell, {RATE: 1.0}), protocol="", seed=0)
        for cell in cells
    ]
    assert len({cell.run_id for cell in plain}) == 26
    assert all(one == other for one in plain for other in plain if one.run_id == other.run_id)


@pytest.fixture(scope="module")
def tuned_report(tmp_path_factory):
    """Runs of two architectures at rate 0.3, and a sweep of one of them at two of their sizes."""
    root = run_directories.write_study(tmp_path_factory.mktemp("study"), ("glu", "mos"), seeds=1)
    for path in sorted(root.glob("*/config.json")):
        config = json.loads(path.read_text())
        config.setdefault("pretrain", {})["optimizer"] = {"learning_rate": 0.3}
        path.write_text(json.dumps(config))
    sizes = sorted(read_study(root).runs["size"].unique())[:2]
    truths = dict(
        zip(sizes, (Sweep(best=0.5, noise=1e-4), Sweep(best=0.3, noise=1e-4)), strict=True)
    )
    runs = [
        truth.runs(0, architecture="glu", size=size, params=10.0 ** (5 + i))
        for i, (size, truth) in enumerate(truths.items())
    ]
    file = root.parent / "tuning.json"
    tuning_runs.write(tuning.curves(pd.concat(runs)), "a sweep", file)
    return everything.analyse(read_study(root), Settings(tuning=str(file))), truths, file


def test_a_file_gives_back_the_curves(tuned_report):
    _, truths, file = tuned_report
    for curve in tuning_runs.read(file):
        (before,) = tuning.curves(
            truths[curve.size].runs(0, architecture="glu", size=curve.size, params=curve.params)
        )
        assert dataclasses.replace(curve, tokens=0) == dataclasses.replace(before, tokens=0)
    content = json.loads(file.read_text())
    content["cells"][0]["losses"][0] = "low"
    file.with_name("bad.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"bad.json: cells\[0\]: losses = \['low'"):
        tuning_runs.read(file.with_name("bad.json"))


def test_a_study_names_the_file_that_its_rates_come_from(tuned_report, tmp_path):
    analysis, _, file = tuned_report
    expected = analysis.results["regrets"]
    shutil.copytree(next(iter(analysis.study.paths.values())).parent, tmp_path / "study")
    for name, there in ((str(file), True), ("gone.json", False)):
        (tmp_path / "study" / "study.json").write_text(json.dumps({"tuning": name}))
        study = read_study(tmp_path / "study")
        assert study.tuning == name
        found = everything.analyse(study).results.get("regrets")
        assert (found is not None) == there
        if there:
            pd.testing.assert_frame_equal(found, expected)
    (tmp_path / "study" / "study.json").write_text('{"tuning": 1}')
    with pytest.raises(InputError, match="study.json: tuning = 1 is not the name of a file"):
        read_study(tmp_path / "study")


def test_table_1_and_the_warnings_say_what_the_rates_cost(tuned_report):
    analysis, truths, _ = tuned_report
    table = analysis.results["regrets"].set_index(["architecture", "size"])
    for size, truth in truths.items():
        assert table.loc[("glu", size), "regret"] == pytest.approx(truth.regret(0.3), abs=0.005)
    assert table.loc["mos", "note"].str.contains("the sweep does not have this cell").all()
    shown = tables.table1(analysis.study, regrets=analysis.results["regrets"])
    place = [column.label for column in shown.columns].index("Regret")
    cells = {(row.architecture, row.cells[0].text): row.cells[place].text for row in shown.rows}
    first = list(truths)[0]
    assert cells["glu", first] == number(table.loc[("glu", first), "regret"])
    assert cells["mos", first] == DASH
    assert len({len(row.cells) for row in shown.rows}) == 1
    (said,) = [text for text in summary.warnings(analysis) if "learning rates" in text]
    assert f"regret of glu at {first}" in said and "smaller differences may be tuning" in said
    assert "is not known" in said and "upstream slopes by" in said

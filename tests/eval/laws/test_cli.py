import json
import pathlib

import numpy as np
import pandas as pd
import pytest
import tyro

from eval.commands import chain_verb, law_verbs, progress
from eval.laws import forms, kaplan_implications
from eval.laws.example_points import TRUTH
from tests.eval import run_directories
from train.records import InputError

VERBS = law_verbs.VERBS | chain_verb.VERBS
N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 3e9, 6), np.geomspace(1e9, 1e11, 5)))


def frame(**changed):
    truth = {**TRUTH["chinchilla"], **changed}
    noise = np.exp(0.003 * np.random.default_rng(len(changed)).standard_normal(len(N)))
    return pd.DataFrame(
        {"N": N, "D": D, "loss": forms.get("chinchilla").predict(truth, N=N, D=D) * noise}
    )


@pytest.fixture
def write(tmp_path):
    def save(table: pd.DataFrame) -> str:
        table.to_csv(tmp_path / "runs.csv", index=False)
        return str(tmp_path / "runs.csv")

    return save


def run(verb, *arguments):
    return tyro.cli(VERBS[verb], args=[*map(str, arguments), "--bootstrap", "60"]).run()


def answer(capsys, verb, *arguments):
    assert run(verb, *arguments, "--format", "json") == 0
    return json.loads(capsys.readouterr().out)


def test_fit_prints_published_symbols_with_intervals(write, capsys):
    found = answer(
        capsys, "fit", write(frame()), "--params", "N", "--tokens", "D", "--loss", "loss"
    )
    for symbol, truth in TRUTH["chinchilla"].items():
        low, high = found[f"{symbol}_interval"]
        assert low < found[symbol] < high and low < truth < high
    assert found["objective"] > 0 and found["objective_name"] == "huber" and found["delta"] == 1e-3
    assert next(iter(found)) == "warnings" and found["warnings"] == []


@pytest.mark.parametrize(
    "switch",
    [["--objective", "l1"], ["--objective", "l2", "--space", "raw"], ["--method", "varpro"]],
)
def test_every_switch_gives_a_fit_near_the_truth(write, capsys, switch):
    assert answer(capsys, "fit", write(frame()), *switch)["alpha"] == pytest.approx(0.34, abs=0.03)


def test_tokens_may_come_from_flops(write, capsys):
    table = frame()
    table["flops"] = 6 * table["N"] * table.pop("D")
    assert answer(capsys, "fit", write(table))["beta"] == pytest.approx(0.28, abs=0.03)


TRACKED = {"N": "model/num_parameters", "D": "train/num_input_tokens_seen", "loss": "eval/loss"}


def test_names_of_trackers_are_read_and_said_and_crashed_runs_left_out(write, capsys):
    plain = answer(capsys, "fit", write(frame()))
    table = frame().rename(columns=TRACKED).assign(State="finished")
    crashed = table.iloc[[0]].assign(State="crashed", **{"eval/loss": 9.0})
    path = write(pd.concat([table, crashed]))
    assert run("fit", path, "--format", "json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["alpha"] == plain["alpha"]
    assert "1 row is left out by column 'State': crashed (row 32)" in shown.err
    for option, column in zip(("params", "tokens", "loss"), TRACKED.values(), strict=True):
        assert f"read {column!r} as {option} (--{option} or --columns names another)" in shown.err


def test_a_file_names_the_columns(write, capsys, tmp_path):
    plain = answer(capsys, "fit", write(frame()), "--k", "6")
    path = write(frame().rename(columns={"N": "width", "D": "seen", "loss": "ce"}))
    names = tmp_path / "names.toml"
    named = 'params = "width"\ntokens = "seen"\nloss = "ce"\nflops-per-param-token = '
    names.write_text(named + "6.0\n")
    assert answer(capsys, "fit", path, "--columns", names)["alpha"] == plain["alpha"]
    names.write_text(named + '"six"\n')
    with pytest.raises(InputError, match="must be a number with a point"):
        run("fit", path, "--columns", names)
    names.write_text("bootstrap = 7\n")
    with pytest.raises(InputError, match="'bootstrap' is not one of params, tokens"):
        run("fit", path, "--columns", names)


def test_a_study_needs_no_file_of_columns(tmp_path):
    study = run_directories.write_study(tmp_path, ("transformer",), run_directories.LADDER[:4])
    with pytest.raises(InputError, match="is a study, whose columns are known"):
        run("fit", study, "--form", "power", "--columns", tmp_path / "names.toml")


def test_a_studys_scores_need_no_options(tmp_path, capsys):
    study = run_directories.write_study(tmp_path, ("transformer",), run_directories.LADDER[:6])
    given = (study, "--form", "power", "--at", "x=1e13")
    found = answer(capsys, "chain", *given)
    named = ("--score", "downstream_mean", "--perfect", 100)
    assert answer(capsys, "chain", *given, *named)["predictions"] == found["predictions"]
    assert 0 < found["predictions"][0]["prediction"] < 100


@pytest.mark.parametrize("intervals", ["bca", "profile"])
def test_other_intervals(write, capsys, intervals):
    found = answer(capsys, "fit", write(frame()), "--intervals", intervals)
    low, high = found["alpha_interval"]
    assert low < found["alpha"] < high and 0.005 < high - low < 0.1


def test_a_fit_without_outliers_is_shown_beside_the_fit_of_all(write, capsys):
    table = frame()
    table["loss"] *= np.where(table.index == 0, 1.5, 1.0)
    found = answer(capsys, "fit", write(table), "--drop-highest-loss", "1")
    assert found["points"] == 29 and found["all_rows"]["points"] == 30


def test_warnings_lead(write, capsys):
    table = frame()
    table["D"] = 20 * table["N"]
    found = answer(capsys, "fit", write(table))
    assert any("D is tied to N" in line for line in found["warnings"])
    run("fit", write(table))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("verdict ") and "read the" in lines[0]
    assert [line.startswith("WARNING: ") for line in lines[1:4]] == [True] * 3


def test_the_verdict_in_one_sentence_comes_first(write, capsys):
    path = write(frame())
    for verb, said in (("fit", "chinchilla on 30 runs: "), ("next", "the most useful run for its")):
        assert run(verb, path) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first.removeprefix("verdict").strip().startswith(said)
        found = answer(capsys, verb, path)
        assert first.endswith(found["verdict"])
    for best, said in ((found["next"][0], "FLOPs is"), (found["next_by_shrink"][0], "most is")):
        place = f"N = {best['N']:.3g}, D = {best['D']:.3g}"
        narrows = f"(by {100 * best['shrink']:.2g} % for {best['flops']:.3g} FLOPs)"
        assert f"{said} {place} {narrows}" in first
    table = pd.concat([frame().assign(arch="a"), frame(A=410.0).assign(arch="b")])
    assert run("next", write(table), "--group", "arch") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "a: the most useful run" in first and "; b: the most useful run" in first


def test_groups_are_compared_over_their_common_range(write, capsys):
    table = pd.concat([frame().assign(arch="a"), frame(A=410.0).assign(arch="b")])
    table = table[(table["arch"] == "a") | (table["N"] < 2e9)]
    found = answer(capsys, "fit", write(table), "--group", "arch")
    assert (found["compared"]["points"], found["compared"]["left_out"]) == (50, 5)
    assert "(5 of 55 points are outside the range that all groups cover)" in found["verdict"]
    every = answer(capsys, "fit", write(table), "--group", "arch", "--support", "all")
    assert (every["compared"]["points"], every["compared"]["left_out"]) == (55, 0)


def test_progress_is_said_on_stderr(monkeypatch, write, capsys):
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    table = pd.concat([frame().assign(arch="a"), frame(A=410.0).assign(arch="b")])
    assert run("fit", write(table), "--group", "arch") == 0
    said = capsys.readouterr().err.splitlines()
    assert "fit: a" in said and "fit: groups: pooled against coefficients" in said


def test_predict_prints_its_backtest_and_widens_extrapolations_by_it(write, capsys):
    """A straight law fitted to a bent one: its intervals hold few of its own larger runs."""
    x = np.geomspace(1e17, 1e21, 16)
    y = forms.get("offset").predict({"A": 300.0, "alpha": 0.12, "E": 1.8}, x=x)
    y = y * np.exp(1e-4 * np.random.default_rng(0).standard_normal(16))
    path = write(pd.DataFrame({"x": x, "loss": y}))
    arguments = ["--form", "power", "--objective", "l2", "--at", "x=1e19", "x=1e22"]
    found = answer(capsys, "predict", path, *arguments)
    inside, outside = found["predictions"]
    past = found["backtest"]
    assert inside["widened"] == 1 and outside["widened"] == past["factor"] > 1.5
    assert past["coverage"] < 0.5
    held = f"95 % intervals held {past['coverage'] * past['points']:.0f} of {past['points']} runs"
    assert any(held in line for line in found["warnings"])
    truth = forms.get("offset").predict({"A": 300.0, "alpha": 0.12, "E": 1.8}, x=1e22)[0]
    narrow = (outside["run_upper"] / outside["prediction"]) ** (1 / outside["widened"])
    assert abs(np.log(truth / outside["prediction"])) > np.log(narrow)
    only = answer(capsys, "predict", path, *arguments[:-1])
    assert not any("backtest" in line for line in only["warnings"])


def test_a_parameter_at_its_bound_has_no_interval_in_any_kind(write, capsys):
    x = np.geomspace(1e6, 1e9, 20)
    y = 20 * x**-0.1 * (1 - 2e-11 * x) * np.exp(0.003 * np.sin(np.arange(20)))
    path = write(pd.DataFrame({"x": x, "loss": y}))
    for kind in ("bootstrap", "bca", "profile"):
        found = answer(
            capsys, "fit", path, "--form", "offset", "--objective", "l2", "--intervals", kind
        )
        assert found["E_interval"] is None and found["alpha_interval"] is not None, kind
        assert "no interval: E is at a bound of its search" in found["warnings"]
        assert "(no interval)" in found["verdict"]


@pytest.mark.slow
def test_groups_are_fitted_compared_and_judged(write, capsys):
    table = pd.concat([frame().assign(arch="vanilla"), frame(alpha=0.3).assign(arch="moe")])
    path = write(table)
    found = answer(capsys, "fit", path, "--group", "arch")
    assert set(found["groups"]) == {"vanilla", "moe"} and "exponents" in found["verdict"]
    assert {"smaller", "larger", "df", "F", "p", "p_holm", "p_bootstrap"} == set(found["tests"][0])
    found = answer(
        capsys, "allocate", path, "--group", "arch", "--budget", "1e19", "--reference", "vanilla"
    )
    assert found["groups"]["moe"]["optima"][0]["N_lower"] < found["groups"]["moe"]["optima"][0]["N"]
    assert len(found["multipliers"]["moe"]) == 5


def test_predict_takes_n_and_d_or_compute(write, capsys):
    found = answer(capsys, "predict", write(frame()), "--at", "N=1e9,D=2e10", "C=1e24")
    here, best = found["predictions"]
    assert (
        here["run_lower"] < here["lower"] < here["prediction"] < here["upper"] < here["run_upper"]
    )
    assert best["N"] * best["D"] * 6 == pytest.approx(1e24)
    assert any("C=1e24" in line and "extrapolation" in line for line in found["warnings"])


def test_next_ranks_candidates(write, capsys, tmp_path):
    pd.DataFrame({"N": [1e8, 1e10], "D": [1e10, 1e12]}).to_csv(tmp_path / "more.csv", index=False)
    found = answer(
        capsys, "next", write(frame()), "--quantity", "beta", "--candidates", tmp_path / "more.csv"
    )
    assert [row["N"] for row in found["next"]] == pytest.approx([1e8, 1e10])
    assert len(answer(capsys, "next", write(frame()))["next"]) == 10


def test_approach_two_reports_its_exponent(write, capsys):
    flops, factor = (
        v.ravel() for v in np.meshgrid(np.geomspace(1e18, 1e21, 4), np.geomspace(0.3, 3, 7))
    )
    n = factor * 1.3 * (flops / 6) ** 0.456
    table = pd.DataFrame({"N": n, "D": flops / 6 / n})
    table["loss"] = forms.get("chinchilla").predict(TRUTH["chinchilla"], N=n, D=flops / 6 / n)
    path = write(table)
    found = answer(capsys, "fit", path, "--approach", "2")
    assert found["a"] == pytest.approx(0.452, abs=0.03) and len(found["budgets"]) == 4
    assert found["verdict"].startswith("the best N grows as C^0.4")
    equal = answer(capsys, "fit", path, "--approach", "2", "--budget-weights", "equal")
    assert equal["a"] == pytest.approx(found["a_unweighted"])
    assert equal["a_interval"] == pytest.approx(found["a_unweighted_interval"])
    with pytest.raises(InputError, match="approach: 1 .* --budget-weights equal cannot be used"):
        run("fit", path, "--approach", "1", "--budget-weights", "equal")


@pytest.mark.parametrize("through", ["measured", "predicted"])
def test_chain_predicts_scores_through_the_loss(write, capsys, through):
    table = frame()
    score = forms.get("downstream_sigmoid").predict(
        TRUTH["downstream_sigmoid"], L=table["loss"].to_numpy()
    )
    table["score"] = score + 0.002 * np.random.default_rng(0).standard_normal(len(table))
    arguments = ["--at", "N=1e9,D=5e10", "C=1e24", "--through", through, "--objective", "l2"]
    found = answer(capsys, "chain", write(table), *arguments)
    loss = forms.get("chinchilla").predict(TRUTH["chinchilla"], N=1e9, D=5e10)
    truth = forms.get("downstream_sigmoid").predict(TRUTH["downstream_sigmoid"], L=loss)[0]
    here, best = found["predictions"]
    if through == "predicted":
        assert here["lower"] is None and any("no intervals" in line for line in found["warnings"])
    else:
        assert here["lower"] < truth < here["upper"]
    assert here["prediction"] == pytest.approx(truth, abs=0.01) and here["loss"] == pytest.approx(
        loss[0], rel=0.01
    )
    assert best["loss"] < here["loss"] and any(
        "extrapolation" in line for line in found["warnings"]
    )
    assert (
        found["loss_law"]["alpha"] == pytest.approx(0.34, abs=0.03) and "L_0" in found["score_law"]
    )
    with pytest.raises(InputError, match="--group, --drop-highest-loss and --fix"):
        run("chain", write(table), "--at", "C=1e21", "--fix", "E=1")
    with pytest.raises(InputError, match="score: name the column"):
        run("chain", write(table.drop(columns="score")), "--at", "C=1e21")
    seconds = ["--delta", "0.1", "--objective", "l1"]
    with pytest.raises(InputError, match="only huber uses delta"):
        run("chain", write(table), "--at", "C=1e21", *seconds)


def test_advice_of_chain_names_only_options_that_it_takes(write):
    one = frame().assign(score=0.5, optimizer="adam")
    table = pd.concat([one, one.assign(optimizer="lion")])
    with pytest.raises(InputError) as error:
        run("chain", write(table), "--at", "C=1e21")
    assert "--where optimizer=adam, or --ignore optimizer" in str(error.value)
    assert "--group" not in str(error.value)
    with pytest.raises(InputError, match="fit each with --group optimizer"):
        run("fit", write(table))


def test_errors_are_in_the_unit_that_perfect_declares(write, capsys):
    loss = np.linspace(2.0, 4.0, 12)
    error = forms.get("downstream_exp").predict(TRUTH["downstream_exp"], L=loss)
    table = pd.DataFrame({"loss": loss, "error": error})
    columns = ["--form", "downstream_exp", "--score", "error"]
    with pytest.raises(InputError, match="is within 0 and 1.*--perfect 1"):
        run("fit", write(table), *columns, "--perfect", "100")
    percent = write(table.assign(error=100 * error))
    with pytest.raises(InputError, match="is outside -1 to 1; --perfect 100"):
        run("fit", percent, *columns)
    found = answer(capsys, "fit", percent, *columns, "--perfect", "100")
    assert found["epsilon"] == pytest.approx(100 * TRUTH["downstream_exp"]["epsilon"], rel=1e-3)


@pytest.mark.slow
def test_every_verb_reads_a_studys_directory(ladders, capsys):
    found = answer(
        capsys,
        "fit",
        ladders,
        "--form",
        "power",
        "--group",
        "architecture",
        "--where",
        "protocol=depth",
    )
    assert set(found["groups"]) == {"evolved", "lconv", "mos", "transformer"}
    assert (
        found["groups"]["mos"]["points"] == 8
        and found["groups"]["mos"]["runs"] == 4
        and found["verdict"]
    )
    plain = ["--form", "power", "--where", "architecture=mos"]
    (row,) = answer(capsys, "predict", ladders, *plain, "--at", "x=3e11")["predictions"]
    assert row["lower"] < row["prediction"] < row["upper"]
    assert answer(capsys, "next", ladders, *plain)["next"][0]["shrink"] > 0
    assert answer(capsys, "allocate", ladders, "--budget", "1e15")["warnings"][
        0
    ]  # there is only one token count, and the message must say so
    score = ["--score", "downstream_mean", "--perfect", "100"]
    with pytest.raises(InputError, match="several architectures"):
        run("chain", ladders, "--form", "power", *score, "--at", "x=3e11")
    assert (
        answer(capsys, "chain", ladders, *plain, *score, "--at", "x=3e11")["predictions"][0][
            "prediction"
        ]
        > 30
    )


def test_a_study_is_fitted_by_architecture_in_its_main_protocol_by_cell(ladders, capsys):
    assert run("fit", ladders, "--form", "power", "--format", "json") == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert set(found["groups"]) == {"evolved", "lconv", "mos", "transformer"} and found["verdict"]
    for law in found["groups"].values():
        assert (
            law["points"] == 8
            and law["runs"] == 4
            and law["bootstrap"]["kind"] == "normal"
            and law["aicc"] is None
        )
    assert "64 runs of other protocols than '' are left out" in said.err
    assert "32 rows are 16 independent runs or cells" in found["warnings"][0]
    assert all(test["p"] is None and test["p_bootstrap"] for test in found["tests"])
    pooled = answer(capsys, "fit", ladders, "--form", "power", "--group", "none")
    assert pooled["points"] == 32 and "groups" not in pooled
    everything = answer(
        capsys, "fit", ladders, "--form", "power", "--group", "none", "--cluster", "run_id"
    )
    assert everything["runs"] == 32


def test_a_study_of_budgets_is_fitted_over_all_of_them(tmp_path, capsys):
    """If no protocol is plain, each is a part of the whole, like the budgets of isoFLOPs."""
    study = run_directories.write_study(
        tmp_path, ("glu",), run_directories.LADDER[:4], protocols=("depth", "width")
    )
    assert run("fit", study, "--form", "power", "--format", "json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["points"] == 8
    assert "none of the protocols depth, width is plain: all are fitted together" in said.err


def per_group(k):
    """Two architectures with one law; the second needs twice the FLOPs per parameter and token."""
    parts = [
        frame().assign(arch=name, flops=each * N * D)
        for name, each in zip(("vanilla", "shared"), k, strict=True)
    ]
    return pd.concat(parts)


def test_flops_for_a_parameter_and_token_are_those_of_the_table(write, capsys):
    path = write(per_group((3.0, 6.0)))
    arguments = [
        path,
        "--tokens",
        "D",
        "--group",
        "arch",
        "--budget",
        "1e19",
        "--reference",
        "vanilla",
    ]
    found = answer(capsys, "allocate", *arguments)
    assert {name: part["k"] for name, part in found["groups"].items()} == pytest.approx(
        {"vanilla": 3, "shared": 6}
    )
    for name, part in found["groups"].items():
        (best,) = part["optima"]
        assert best["N"] * best["D"] * {"vanilla": 3, "shared": 6}[name] == pytest.approx(1e19)
    assert [row["multiplier"] for row in found["multipliers"]["shared"]] == pytest.approx(
        [0.5] * 5, rel=0.1
    )
    given = answer(capsys, "allocate", *arguments, "--k", "6")
    assert [row["multiplier"] for row in given["multipliers"]["shared"]] == pytest.approx(
        [1.0] * 5, rel=0.1
    )
    assert given["groups"]["vanilla"]["k"] == 6
    fitted = answer(capsys, "fit", path, "--tokens", "D", "--where", "arch=vanilla")
    assert fitted["k"] == pytest.approx(3)


def test_a_column_that_is_no_training_flops_is_doubted(write, capsys):
    table = frame().assign(flops=2 * N)
    found = answer(
        capsys, "predict", write(table.assign(flops=1e7 + N)), "--tokens", "D", "--at", "C=1e20"
    )
    assert any("are these the FLOPs of the whole training?" in line for line in found["warnings"])
    table["flops"] = N * D * np.where(N > 1e9, 6, 18)
    found = answer(capsys, "predict", write(table), "--tokens", "D", "--at", "C=1e20")
    assert any("C / (N D) runs from 6 to 18" in line for line in found["warnings"])


def test_a_weight_may_be_the_root_of_compute_and_its_unit_is_free(write, capsys):
    table = frame().assign(root=lambda t: np.sqrt(t["N"] * t["D"]))
    found = [answer(capsys, "fit", write(table), "--weight", name) for name in ("root", "sqrt(C)")]
    found.append(
        answer(capsys, "fit", write(table.assign(root=1e-9 * table["root"])), "--weight", "root")
    )
    for other in found[1:]:
        for key in ("alpha", "objective", "sigma", "aicc"):
            assert other[key] == pytest.approx(found[0][key], rel=1e-6)
        assert other["alpha_interval"] == pytest.approx(found[0]["alpha_interval"], rel=1e-5)


def test_approach_two_takes_groups_and_outliers(write, capsys):
    parts = []
    for name, lead in (("a", 1.0), ("b", 2.0)):
        flops, factor = (
            v.ravel() for v in np.meshgrid(np.geomspace(1e18, 1e21, 4), np.geomspace(0.3, 3, 7))
        )
        n = factor * lead * (flops / 6) ** 0.456
        loss = forms.get("chinchilla").predict(
            TRUTH["chinchilla"], N=n / lead, D=flops / 6 / n * lead
        )
        parts.append(pd.DataFrame({"arch": name, "N": n, "D": flops / 6 / n, "loss": loss}))
    path = write(pd.concat(parts))
    found = answer(
        capsys, "fit", path, "--approach", "2", "--group", "arch", "--drop-highest-loss", "1"
    )
    assert set(found["groups"]) == {"a", "b"}
    counts = [
        sum(row["points"] for p in f["groups"].values() for row in p["budgets"])
        for f in (found, found["all_rows"])
    ]
    assert counts == [55, 56]


@pytest.mark.parametrize(
    "verb, more", [("predict", ["--at", "N=1e9,D=2e10"]), ("allocate", ["--budget", "1e19"])]
)
def test_without_outliers_and_with_them_side_by_side_in_every_verb(write, capsys, verb, more):
    table = frame()
    table["loss"] *= np.where(table.index == 0, 1.5, 1.0)
    found = answer(capsys, verb, write(table), *more, "--drop-highest-loss", "1")
    assert found["points"] == 29 and found["all_rows"]["points"] == 30


def test_profile_says_which_symbols_it_cannot_follow(write, capsys):
    found = answer(capsys, "fit", write(frame()), "--form", "kaplan_n", "--intervals", "profile")
    assert (
        found["N_c_interval"] is None
        and found["alpha_N_interval"][0] < found["alpha_N_interval"][1]
    )
    assert any("N_c of kaplan_n is computed from several" in line for line in found["warnings"])


def test_next_has_a_cap_and_a_second_order(write, capsys):
    found = answer(
        capsys, "next", write(frame()), "--budget", "1e20", "--quantity", "loss@N=1e11,D=2e12"
    )
    cheap, useful = found["next"], found["next_by_shrink"]
    assert max(row["flops"] for row in cheap + useful) <= 1e20
    assert [row["shrink"] for row in useful] == sorted(
        (row["shrink"] for row in useful), reverse=True
    )
    assert useful[0]["shrink"] > cheap[0]["shrink"] and useful[0]["flops"] > cheap[0]["flops"]
    with pytest.raises(InputError, match="no candidate costs 1 FLOPs or less"):
        run("next", write(frame()), "--budget", "1")


def test_kaplans_laws_tell_what_they_imply(write, capsys):
    loss = forms.get("kaplan_nd").predict(TRUTH["kaplan_nd"], N=N, D=D)
    path = write(pd.DataFrame({"N": N, "D": D, "loss": loss * (1 + 1e-5 * np.cos(np.arange(30)))}))
    (row,) = answer(capsys, "predict", path, "--form", "kaplan_nd", "--at", "N=1e9,D=2e10")[
        "predictions"
    ]
    assert row["overfitting"] == pytest.approx(kaplan_implications.overfitting(1e9, 2e10), rel=0.02)
    assert row["D_for_2pct"] == pytest.approx(kaplan_implications.data_needed(1e9), rel=0.02)
    assert row["stop_step_published"] == pytest.approx(
        kaplan_implications.early_stopping_step(1e9, 2e10), rel=0.05
    )
    assert row["critical_batch_published"] == pytest.approx(
        kaplan_implications.critical_batch(row["prediction"])
    )
    (row,) = answer(capsys, "predict", path, "--form", "kaplan_c", "--at", "C=1e20")["predictions"]
    assert row["N_published"] == pytest.approx(
        kaplan_implications.allocation(1e20 / kaplan_implications.PF_DAY)["N"]
    )


def test_unfinished_runs_are_reported_and_a_missing_value_names_its_run(tmp_path, capsys):
    path = run_directories.write_study(tmp_path, ("transformer",), run_directories.LADDER[:5])
    status = path / "transformer-nano-s0" / "status.json"
    status.write_text(status.read_text().replace('"done"', '"failed"'))
    assert run("fit", path, "--form", "power") == 0
    assert "1 of 5 runs failed" in capsys.readouterr().err
    evals = path / "transformer-mini-s0" / "evals.jsonl"
    evals.write_text("")
    with pytest.raises(
        InputError, match=r"\(run transformer-mini-s0\): upstream_nll = nan is empty"
    ):
        run("fit", path, "--form", "power")


def spoil(column, row, value):
    table = frame().astype({"N": object, "D": object, "loss": object})
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    "table, words",
    [
        (lambda: spoil("loss", 3, "n/k"), ["row 5", "loss = 'n/k'", "not a number"]),
        (lambda: spoil("N", 0, 0), ["row 2", "N = 0", "not above zero"]),
        (lambda: spoil("D", 7, -1e9), ["row 9", "D", "not above zero"]),
        (lambda: spoil("loss", 2, None), ["row 4", "loss", "empty"]),
        (lambda: spoil("loss", 2, np.inf), ["row 4", "loss", "not finite"]),
        (
            lambda: frame().assign(N=lambda t: t["N"] / 1e9),
            ["row 2", "N = 0.01", "thousands, millions or billions"],
        ),
        (
            lambda: frame().assign(D=lambda t: t["D"] / 1e9),
            ["row 2", "D = 1.0", "thousands, millions or billions"],
        ),
        (lambda: frame().assign(N=lambda t: t["N"] * 1e9), ["row 2", "N = 1", "another unit"]),
        (lambda: spoil("D", 4, D[4] * 1e9), ["row 6", "D", "mix units"]),
        (lambda: frame().drop(columns="D"), ["tokens", "--tokens"]),
        (lambda: pd.concat([frame(), frame().iloc[[4]]]), ["row 32", "repeats row 6"]),
        (lambda: frame().iloc[:0], ["no rows"]),
    ],
    ids=[
        "text",
        "zero",
        "negative",
        "empty",
        "infinite",
        "params/1e9",
        "tokens/1e9",
        "params*1e9",
        "mixed",
        "missing",
        "twice",
        "none",
    ],
)
def test_bad_tables_give_one_line_with_column_and_row(write, table, words):
    with pytest.raises(InputError) as error:
        run("fit", write(table()))
    line = str(error.value)
    assert "\n" not in line and "runs.csv" in line
    for word in words:
        assert word in line, line


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--form", "chinchila"], "form: 'chinchila' is not one of"),
        (["--params", "parameters"], "no column 'parameters'"),
        (["--delta", "0"], "delta = 0.0 must be above 0 and finite"),
        (["--fix", "gamma=1"], "has no parameter 'gamma'"),
        (["--fix", "E"], "not SYMBOL=VALUE"),
        (["--form", "power", "--x", "N", "--starts", "hoffmann"], "Hoffmann's grid"),
        (["--form", "kaplan_nd", "--method", "varpro"], "varpro needs a sum of powers"),
        (["--group", "N", "--group", "arch"], "no column 'arch'"),
        (["--method", "varpro", "--fix", "E=1"], "varpro .*, so --fix E=1 cannot be used"),
        (
            ["--method", "varpro", "--objective", "huber"],
            "varpro .*, so --objective huber cannot be used",
        ),
        (["--method", "varpro", "--space", "log"], "varpro .*, so --space log cannot be used"),
        (
            ["--approach", "2", "--fix", "E=1"],
            "approach: 2 fits no law, so --fix E=1 cannot be used",
        ),
        (
            ["--approach", "1", "--form", "kaplan_nd"],
            "approach: 1 fits no law, so --form kaplan_nd cannot be used",
        ),
        (["--chance", "0.25"], "chinchilla has no score of random guessing, so --chance 0.25"),
        (["--perfect", "100"], "chinchilla has no largest value, so --perfect 100"),
        (
            ["--form", "downstream_exp", "--chance", "0.25"],
            "downstream_exp has no score of random guessing, so --chance 0.25",
        ),
        (["--objective", "l2", "--delta", "0.1"], "only huber uses delta, so --delta 0.1"),
        (["--method", "varpro", "--delta", "0.1"], "only huber uses delta, so --delta 0.1"),
        (["--profile", "akima"], "approach: 3 .*, so --profile akima cannot be used"),
        (["--k", "0"], "flops_per_param_token = 0.0 must be above 0 and finite"),
        (["--form", "kaplan_n", "--fix", "N_c=1e13"], "N_c of kaplan_n depends on alpha_N"),
        (
            ["--form", "kaplan_n", "--params", "N", "--weight", "sqrt(C)"],
            r"sqrt\(C\) needs training FLOPs",
        ),
    ],
)
def test_bad_options_give_one_line(write, arguments, words):
    with pytest.raises(InputError, match=words):
        run("fit", write(frame()), *arguments)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="no such file"):
        run("fit", pathlib.Path("nowhere.csv"))


def histories(steps, name=None, seed=0):
    """Eight models, each at several checkpoints that share the error of their run."""
    rng, rows = np.random.default_rng(seed), []
    law = forms.get("chinchilla")
    for i, n in enumerate(np.geomspace(1e8, 1e10, 8)):
        error = np.exp(0.01 * rng.standard_normal())
        for d in steps:
            y = law.predict(TRUTH["chinchilla"], N=n, D=d)[0] * error
            rows.append({"N": n, "D": d, "loss": y * np.exp(1e-4 * rng.standard_normal())})
            rows[-1] |= {name: f"m{i}"} if name else {}
    return pd.DataFrame(rows)


def test_checkpoints_are_recognised_by_their_equal_steps(write, capsys):
    """Taken as runs of their own, their interval is several times too narrow."""
    path = write(histories(2e9 * np.arange(1, 25)))
    found = answer(capsys, "fit", path, "--objective", "l2")
    assert run("fit", path, "--objective", "l2") == 0
    said = capsys.readouterr().err
    assert "rows with one N are taken as checkpoints of one run" in said and "(8 runs)" in said
    assert found["points"] == 192 and found["runs"] == 8
    apart = answer(capsys, "fit", path, "--objective", "l2", "--cluster", "none")
    assert apart["runs"] == 192
    width = {
        k: v["alpha_interval"][1] - v["alpha_interval"][0]
        for k, v in (("own", found), ("apart", apart))
    }
    assert width["own"] > 3 * width["apart"]
    low, high = found["alpha_interval"]
    assert low < TRUTH["chinchilla"]["alpha"] < high


@pytest.mark.slow
def test_groups_of_one_size_are_runs_of_their_own(write, capsys):
    steps = 2e9 * np.arange(1, 9)
    table = pd.concat(
        [histories(steps).assign(arch="a"), histories(steps, seed=1).assign(arch="b")]
    )
    found = answer(capsys, "predict", write(table), "--group", "arch", "--at", "N=1e9,D=1e10")
    assert [part["runs"] for part in found["groups"].values()] == [8, 8]


def test_planned_amounts_of_data_are_runs_of_their_own(write, capsys):
    assert answer(capsys, "fit", write(frame()))["runs"] == 30
    found = answer(capsys, "fit", write(histories(np.geomspace(1e9, 1e11, 9))))
    assert found["runs"] == 72
    assert run("fit", write(histories(np.geomspace(1e9, 1e11, 9)))) == 0
    assert "rows of one size are at 9 steps or amounts of data" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model", "run", "exp_name", "wandb_id", "training run"])
def test_a_column_of_run_names_is_recognised(write, capsys, name):
    path = write(histories(np.geomspace(1e9, 1e11, 5), name))
    assert answer(capsys, "fit", path)["runs"] == 8

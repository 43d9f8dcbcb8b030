import json
import pathlib

import numpy as np
import pandas as pd
import pytest
import tyro

from eval.scaling_laws import chain_cli, cli, forms
from eval.scaling_laws.examples import TRUTH
from tests.eval import run_directories
from train.records import InputError

VERBS = cli.VERBS | chain_cli.VERBS
N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 3e9, 6), np.geomspace(1e9, 1e11, 5)))


def frame(**changed):
    truth = {**TRUTH["chinchilla"], **changed}
    noise = np.exp(0.003 * np.random.default_rng(len(changed)).standard_normal(len(N)))
    return pd.DataFrame({"N": N, "D": D, "loss": forms.get("chinchilla").predict(truth, N=N, D=D) * noise})


@pytest.fixture
def write(tmp_path):
    def save(table: pd.DataFrame) -> str:
        table.to_csv(tmp_path / "runs.csv", index=False)
        return str(tmp_path / "runs.csv")

    return save


def run(verb, *arguments):
    options, function = VERBS[verb]
    return function(tyro.cli(options, args=[*map(str, arguments), "--bootstrap", "60"]))


def answer(capsys, verb, *arguments):
    assert run(verb, *arguments, "--format", "json") == 0
    return json.loads(capsys.readouterr().out)


def test_fit_prints_published_symbols_with_intervals(write, capsys):
    found = answer(capsys, "fit", write(frame()), "--params", "N", "--tokens", "D", "--loss", "loss")
    for symbol, truth in TRUTH["chinchilla"].items():
        low, high = found[f"{symbol}_interval"]
        assert low < found[symbol] < high and low < truth < high
    assert found["objective"] > 0 and found["objective_name"] == "huber" and found["delta"] == 1e-3
    assert next(iter(found)) == "warnings" and found["warnings"] == []


@pytest.mark.parametrize(
    "switch", [["--objective", "l1"], ["--objective", "l2", "--space", "raw"], ["--method", "varpro"]]
)
def test_every_switch_gives_a_fit_near_the_truth(write, capsys, switch):
    assert answer(capsys, "fit", write(frame()), *switch)["alpha"] == pytest.approx(0.34, abs=0.03)


def test_tokens_may_come_from_flops(write, capsys):
    table = frame()
    table["flops"] = 6 * table["N"] * table.pop("D")
    assert answer(capsys, "fit", write(table))["beta"] == pytest.approx(0.28, abs=0.03)


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
    assert capsys.readouterr().out.startswith("WARNING: ")


def test_groups_are_fitted_compared_and_judged(write, capsys):
    table = pd.concat([frame().assign(arch="vanilla"), frame(alpha=0.3).assign(arch="moe")])
    path = write(table)
    found = answer(capsys, "fit", path, "--group", "arch")
    assert set(found["groups"]) == {"vanilla", "moe"} and "exponents" in found["verdict"]
    assert {"smaller", "larger", "df", "F", "p", "p_holm", "p_bootstrap"} == set(found["tests"][0])
    found = answer(capsys, "allocate", path, "--group", "arch", "--budget", "1e19", "--reference", "vanilla")
    assert found["groups"]["moe"]["optima"][0]["N_lower"] < found["groups"]["moe"]["optima"][0]["N"]
    assert len(found["multipliers"]["moe"]) == 5


def test_predict_takes_n_and_d_or_compute(write, capsys):
    found = answer(capsys, "predict", write(frame()), "--at", "N=1e9,D=2e10", "C=1e24")
    here, best = found["predictions"]
    assert here["run_lower"] < here["lower"] < here["prediction"] < here["upper"] < here["run_upper"]
    assert best["N"] * best["D"] * 6 == pytest.approx(1e24)
    assert any("C=1e24" in line and "extrapolation" in line for line in found["warnings"])


def test_next_ranks_candidates(write, capsys, tmp_path):
    pd.DataFrame({"N": [1e8, 1e10], "D": [1e10, 1e12]}).to_csv(tmp_path / "more.csv", index=False)
    found = answer(capsys, "next", write(frame()), "--quantity", "beta", "--candidates", tmp_path / "more.csv")
    assert [row["N"] for row in found["next"]] == pytest.approx([1e8, 1e10])
    assert len(answer(capsys, "next", write(frame()))["next"]) == 10


def test_approach_two_reports_its_exponent(write, capsys):
    flops, factor = (v.ravel() for v in np.meshgrid(np.geomspace(1e18, 1e21, 4), np.geomspace(0.3, 3, 7)))
    n = factor * 1.3 * (flops / 6) ** 0.456
    table = pd.DataFrame({"N": n, "D": flops / 6 / n})
    table["loss"] = forms.get("chinchilla").predict(TRUTH["chinchilla"], N=n, D=flops / 6 / n)
    found = answer(capsys, "fit", write(table), "--approach", "2")
    assert found["a"] == pytest.approx(0.452, abs=0.03) and len(found["budgets"]) == 4


@pytest.mark.parametrize("through", ["measured", "predicted"])
def test_chain_predicts_scores_through_the_loss(write, capsys, through):
    table = frame()
    score = forms.get("downstream_sigmoid").predict(TRUTH["downstream_sigmoid"], L=table["loss"].to_numpy())
    table["score"] = score + 0.002 * np.random.default_rng(0).standard_normal(len(table))
    arguments = ["--at", "N=1e9,D=5e10", "C=1e24", "--through", through, "--objective", "l2"]
    found = answer(capsys, "chain", write(table), *arguments)
    loss = forms.get("chinchilla").predict(TRUTH["chinchilla"], N=1e9, D=5e10)
    truth = forms.get("downstream_sigmoid").predict(TRUTH["downstream_sigmoid"], L=loss)[0]
    here, best = found["predictions"]
    assert here["lower"] < truth < here["upper"] and here["loss"] == pytest.approx(loss[0], rel=0.01)
    assert best["loss"] < here["loss"] and any("extrapolation" in line for line in found["warnings"])
    assert found["loss_law"]["alpha"] == pytest.approx(0.34, abs=0.03) and "L_0" in found["score_law"]
    with pytest.raises(InputError, match="group, drop_highest_loss and fix"):
        run("chain", write(table), "--at", "C=1e21", "--fix", "E=1")
    with pytest.raises(InputError, match="score: name the column"):
        run("chain", write(table.drop(columns="score")), "--at", "C=1e21")


def test_every_verb_reads_a_studys_directory(ladders, capsys):
    found = answer(capsys, "fit", ladders, "--form", "power", "--group", "architecture", "--where", "protocol=depth")
    assert set(found["groups"]) == {"evolved", "lconv", "mos", "transformer"}
    assert found["groups"]["mos"]["runs"] == 8 and found["verdict"]
    plain = ["--form", "power", "--where", "architecture=mos"]
    (row,) = answer(capsys, "predict", ladders, *plain, "--at", "x=3e11")["predictions"]
    assert row["lower"] < row["prediction"] < row["upper"]
    assert answer(capsys, "next", ladders, *plain)["next"][0]["shrink"] > 0
    assert answer(capsys, "allocate", ladders, "--budget", "1e15")["warnings"][0]  # one token count: it must say so
    score = ["--score", "downstream_mean", "--perfect", "100"]
    assert answer(capsys, "chain", ladders, *plain, *score, "--at", "x=3e11")["predictions"][0]["prediction"] > 30


def test_unfinished_runs_are_said_and_a_missing_value_names_its_run(tmp_path, capsys):
    path = run_directories.write_study(tmp_path, ("transformer",), run_directories.LADDER[:5])
    status = path / "transformer-nano-s0" / "status.json"
    status.write_text(status.read_text().replace('"done"', '"failed"'))
    assert run("fit", path, "--form", "power") == 0
    assert "1 of 5 runs failed" in capsys.readouterr().err
    evals = path / "transformer-mini-s0" / "evals.jsonl"
    evals.write_text("")
    with pytest.raises(InputError, match=r"\(run transformer-mini-s0\): upstream_nll = nan is empty"):
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
        (lambda: frame().assign(N=lambda t: t["N"] / 1e9), ["row 2", "N = 0.01", "thousands, millions or billions"]),
        (lambda: frame().assign(D=lambda t: t["D"] / 1e9), ["row 2", "D = 1.0", "thousands, millions or billions"]),
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
        (["--delta", "0"], "delta: 0.0 is not above zero"),
        (["--fix", "gamma=1"], "has no parameter 'gamma'"),
        (["--fix", "E"], "not SYMBOL=VALUE"),
        (["--form", "power", "--x", "N", "--starts", "hoffmann"], "Hoffmann's grid"),
        (["--form", "kaplan_nd", "--method", "varpro"], "varpro needs a sum of powers"),
        (["--group", "N", "--group", "arch"], "no column 'arch'"),
    ],
)
def test_bad_options_give_one_line(write, arguments, words):
    with pytest.raises(InputError, match=words):
        run("fit", write(frame()), *arguments)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="no such file"):
        run("fit", pathlib.Path("nowhere.csv"))

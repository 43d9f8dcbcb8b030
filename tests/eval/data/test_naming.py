"""Tables of others: a file of columns, usual names, and runs that have not ended."""

import itertools

import pandas as pd
import pytest

import eval as evaluation
import train
from eval.__main__ import main
from eval.data import run_table
from eval.data.run_table import RunColumns
from train.records import InputError

ROWS = [
    {"arch": arch, "size": size, "N": 1e6 * 3**size, "loss": 4 - 0.3 * size - 0.1 * (arch == "b")}
    for arch, size in itertools.product("ab", range(1, 5))
]


def table(names, path, **more):
    """The rows under other names, as CSV."""
    frame = pd.DataFrame(ROWS).rename(columns=names)
    for name, values in more.items():
        frame[name] = values
    frame.to_csv(path, index=False)
    return path


def read(path, **columns):
    study = run_table.read_table(path, RunColumns(**columns))
    return study.runs, " ".join(study.warnings)


PLAIN = {"arch": "architecture", "N": "params_total", "loss": "upstream_nll"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (  # Weights & Biases
            {"arch": "config.architecture", "N": "model/num_parameters", "loss": "eval/loss"},
            "read 'config.architecture' as architecture, 'model/num_parameters' as params_total, "
            "'eval/loss' as upstream_nll (--architecture or --params or --upstream or --columns",
        ),
        (  # MLflow
            {"arch": "params.model_name", "N": "params.n_params", "loss": "metrics.val_loss"},
            "'metrics.val_loss' as upstream_nll",
        ),
        (
            {"arch": "Model", "N": "Num Params", "loss": "Validation Loss"},
            "'Model' as architecture",
        ),
        (PLAIN, ""),
    ],
)
def test_usual_names_are_guessed_and_said(tmp_path, names, said):
    plain, before = read(table(PLAIN, tmp_path / "plain.csv"))
    found, warnings = read(table(names, tmp_path / "runs.csv"))
    assert said in warnings and ("read '" in warnings) == bool(said)
    columns = ["architecture", "size", "params_total", "upstream_nll"]
    pd.testing.assert_frame_equal(found[columns], plain[columns])
    assert "read '" not in before


def test_what_the_user_says_is_not_guessed(tmp_path):
    path = table({"N": "params"}, tmp_path / "runs.csv", val_loss=[9.0] * 8)
    runs, warnings = read(path, upstream="loss")
    assert (runs.upstream_nll < 4).all() and "upstream" not in warnings
    runs, warnings = read(path)
    assert (runs.upstream_nll == 9).all() and "'val_loss' as upstream_nll" in warnings


def test_scores_of_the_harness_are_found(tmp_path):
    scores = {"arc_easy/acc,none": 30.0, "arc_easy/acc_norm,none": 40.0, "boolq/acc": 60.0}
    path = table({"N": "params"}, tmp_path / "runs.csv", **{k: [v] * 8 for k, v in scores.items()})
    runs, warnings = read(path)
    assert "'arc_easy/acc_norm,none', 'boolq/acc' as scores (--downstream)" in warnings
    assert (runs.downstream_mean == 50).all()


@pytest.mark.parametrize("column", ["State", "status"])
def test_runs_that_did_not_end_are_named_and_left_out(tmp_path, column):
    states = ["finished"] * 6 + ["crashed", "running"]
    path = table(PLAIN, tmp_path / "runs.csv", Name=[f"r{i}" for i in range(8)], **{column: states})
    runs, warnings = read(path)
    assert len(runs) == 6
    assert (
        f"2 rows are left out by column '{column}': crashed (r6, row 8), running (r7, row 9)."
        in warnings
    )
    path = table(PLAIN, tmp_path / "runs.csv", **{column: ["failed"] * 8})
    with pytest.raises(InputError, match=f"no run has ended: {column} is failed"):
        read(path)
    runs, warnings = read(table(PLAIN, tmp_path / "runs.csv", **{column: ["Ohio"] * 8}))
    assert len(runs) == 8 and "left out" not in warnings


def test_a_file_names_the_columns(tmp_path, capsys):
    path = table({"arch": "kind", "N": "weights", "loss": "ce"}, tmp_path / "runs.csv")
    names = tmp_path / "map.toml"
    names.write_text('architecture = "kind"\nparams = "weights"\nupstream = "ce"\n')
    assert main(["slopes", str(path), "--columns", str(names), "--format", "json"]) == 0
    by_file = capsys.readouterr().out
    options = ["--architecture", "kind", "--params", "weights", "--upstream", "ce"]
    assert main(["slopes", str(path), *options, "--format", "json"]) == 0
    assert capsys.readouterr().out == by_file
    names.write_text('architecture = "nope"\nparams = "weights"\nupstream = "ce"\nwhere = "size=1"')
    runs, _ = read(path, columns=names, architecture="kind")  # the command line comes first
    assert set(runs["size"]) == {"1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('colour = "x"', "'colour' is not one of architecture, size"),
        ("params = 3", "params = 3: must be text"),
        ('fractions = "yes"', "fractions = 'yes': must be true or false"),
        ("downstream = [1]", "downstream = [1]: must be a list of texts"),
        ("params = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, capsys, text, said):
    path, names = table(PLAIN, tmp_path / "runs.csv"), tmp_path / "map.toml"
    names.write_text(text)
    assert main(["slopes", str(path), "--columns", str(names)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "map.toml" in line
    assert main(["slopes", str(path), "--columns", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_missing_columns_are_named_together(tmp_path, capsys):
    path = table({"arch": "kind", "N": "weights"}, tmp_path / "runs.csv")
    assert main(["slopes", str(path), "--upstream", "nope"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "architecture: no column 'architecture'; upstream: no column 'nope'; neither flops "
        "'flops_forward' nor params 'params_total' is a column; it has kind, size, weights, loss"
    ) in line


TRACKED = {"arch": "config.architecture", "N": "model/num_parameters", "loss": "eval/loss"}


@pytest.mark.parametrize(("verb", "option"), [("compare", "--x"), ("pareto", "--cost")])
def test_costs_are_parameters_where_no_run_has_flops(tmp_path, capsys, verb, option):
    path = str(table(PLAIN, tmp_path / "runs.csv"))
    assert main([verb, path, option, "P", "--format", "json"]) == 0
    asked = capsys.readouterr().out
    assert main([verb, path, "--format", "json"]) == 0
    found = capsys.readouterr()
    assert found.out == asked and len(asked) > 100
    assert "no run has FLOPs, so costs are parameters" in found.err


def test_a_sweep_is_read_by_usual_names(tmp_path, capsys):
    path = str(table(TRACKED, tmp_path / "runs.csv", **{"config.lr": 0.1, "config.seed": 0}))
    assert main(["tune", path]) == 0
    found = capsys.readouterr()
    for name in ("'config.lr' as learning_rate", "'eval/loss' as upstream_nll"):
        assert name in found.err
    names = tmp_path / "names.toml"
    names.write_text('architecture = "config.architecture"\nrate = "config.lr"\n')
    assert main(["tune", path, "--columns", str(names)]) == 0
    assert capsys.readouterr().out == found.out


def test_a_file_is_no_study(tmp_path):
    with pytest.raises(InputError, match="is a file; eval.read_table reads a table of runs"):
        evaluation.read_study(table(PLAIN, tmp_path / "runs.csv"))


def test_public_names_are_listed_and_shown_in_a_line(tmp_path):
    assert {"read_study", "Comparison"} <= set(dir(evaluation))
    assert {"load", "Decoding"} <= set(dir(train))
    study = run_table.read_table(table(PLAIN, tmp_path / "runs.csv"))
    assert repr(study) == "Study('runs', 8 finished runs, 0 not finished)"

"""The best and the last checkpoint of every run, from a study's directory and from a table."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from eval.__main__ import main
from eval.analyses import saturation
from eval.analyses.saturation import CheckpointColumns, CheckpointTable
from eval.data.study import read_study
from eval.simulation import sources as simulated
from tests.eval import run_directories
from train.records import InputError

STEPS = 1000 * np.arange(1, 21)


def course(run: str, late: float, noise: float = 0.02) -> pd.DataFrame:
    """Falls to 3.0 at step 10,000 and then changes by `late` per 10,000 steps."""
    after = np.maximum(STEPS - 10_000, 0) / 10_000
    value = 3.0 + np.maximum(10_000 - STEPS, 0) / 10_000 + late * after
    jitter = noise * np.resize([1.0, -1.0, -1.0, 1.0], len(STEPS))
    return pd.DataFrame({"run_id": run, "step": STEPS, "value": value + jitter})


def test_the_late_change_is_called_what_it_is():
    rows = [course("falls", -0.5), course("flat", 0.0), course("rises", 0.5)]
    table = CheckpointTable(pd.concat(rows)).table().set_index("run_id")
    assert list(table["verdict"]) == ["becomes better", "not told apart", "becomes worse"]
    assert table["late_change"].to_numpy() == pytest.approx([-0.5, 0.0, 0.5], abs=0.03)
    assert (table["ci_low"] < table["late_change"]).all()
    assert (table["late_change"] < table["ci_high"]).all()
    rises = table.loc["rises"]
    assert (rises["best"], rises["best_step"]) == (pytest.approx(2.98), 10_000)
    assert (rises["last"], rises["last_step"]) == (pytest.approx(3.52), 20_000)
    assert rises["last_over_best"] == pytest.approx(3.52 / 2.98)


def test_a_score_is_better_where_it_is_high():
    table = CheckpointTable(course("score", 0.5), higher_is_better=True).table()
    assert list(table["verdict"]) == ["becomes better"] and list(table["best_step"]) == [1000]


def test_two_late_checkpoints_have_no_trend():
    table = CheckpointTable(course("short", 0.5).iloc[[0, 1, 2, 9, 18]]).table()
    assert list(table["verdict"]) == ["not tested"] and table["p_holm"].isna().all()
    assert table["note"].str.contains("fewer than 3 checkpoints in the second half").all()


def test_rows_without_a_value_are_counted_in_a_warning(tmp_path, capsys):
    rows = course("a", 0.0)
    rows.loc[0, "value"] = np.nan
    path = tmp_path / "checkpoints.csv"
    rows.to_csv(path, index=False)
    assert main(["saturation", str(path)]) == 0
    assert f"warning: {path}: rows without a value, left out: 1" in capsys.readouterr().err


def test_a_study_gives_its_held_out_losses(tmp_path):
    study = simulated.saturation(noise=0.0)
    path = run_directories.write_simulated(tmp_path, study)
    found = saturation.of_study(path).table().set_index("run_id")
    rows = read_study(path).histories
    loss = rows[(rows["metric"] == "nll") & (rows["run_id"] == "transformer-w8-s0")]
    assert found.loc["transformer-w8-s0", "best"] == loss["value"].min()
    assert found.loc["transformer-w8-s0", "last"] == loss["value"].iloc[-1]
    kept = saturation.of_study(path, ("size=w8",)).table()
    assert len(kept) == 3 and (kept["last_over_best"] > 1.005).all()


def test_an_unfinished_run_is_named_with_its_state(tmp_path):
    path = run_directories.write_simulated(tmp_path, simulated.mixtures())
    kept, *others = sorted(path.iterdir())
    for other in others:
        shutil.rmtree(other)
    status = json.loads((kept / "status.json").read_text())
    (kept / "status.json").write_text(json.dumps(status | {"state": "queued"}))
    with pytest.raises(InputError, match=rf"no run is finished; {kept.name} is queued, stage"):
        saturation.of_study(path)


def test_the_verb_reads_a_table_and_chooses_rows(tmp_path, capsys):
    rows = pd.concat([course("a", 0.5).assign(shots="zero"), course("a", 0.0).assign(shots="five")])
    path = tmp_path / "checkpoints.csv"
    rows.rename(columns={"run_id": "model", "value": "ppl"}).to_csv(path, index=False)
    options = ["saturation", str(path), "--run-id", "model", "--value", "ppl", "--format", "json"]
    assert main([*options, "--where", "shots=zero"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["verdict"] == "becomes worse" and row["checkpoints"] == 20
    assert main(options) == 2
    assert "step = 1000 is in the table twice for 'a'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, r"row 2.*: step = -1 is below 0"),
        ({"step": 0.5}, r"row 2.*: step = 0.5 is not an integer"),
        ({"value": "high"}, r"row 2.*: value = 'high' is not a number"),
    ],
)
def test_bad_rows_are_refused(tmp_path, change, message):
    rows = course("a", 0.0).astype(object)
    for column, value in change.items():
        rows.iloc[0, rows.columns.get_loc(column)] = value
    path = tmp_path / "checkpoints.csv"
    rows.to_csv(path, index=False)
    with pytest.raises(InputError, match=message):
        saturation.of_table(path)


def test_columns_of_a_directory_are_refused(tmp_path, capsys):
    assert main(["saturation", str(tmp_path), "--value", "ppl"]) == 2
    assert "held-out losses are taken" in capsys.readouterr().err
    path = tmp_path / "table.csv"
    course("a", 0.0).to_csv(path, index=False)
    with pytest.raises(InputError, match="no column 'ppl'"):
        saturation.of_table(path, CheckpointColumns(value="ppl"))

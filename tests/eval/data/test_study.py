"""The store turns run records into one typed table and loses nothing."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from eval.analyses import everything
from eval.data.study import MEAN_OF_TASKS, learning_curves, read_study
from tests.eval import run_directories
from train import records
from train.records import InputError

# Other projects' scripts rely on these names and their order.
BEFORE = (
    "run_id study architecture family size protocol seed params_total params_embedding "
    "params_non_embedding params_active state_size flops_forward flops_train_total tokens_seen "
    "unique_tokens steps steps_per_second tokens_per_second mfu upstream_nll upstream_nll_stderr "
    "upstream_neg_log_ppl upstream_bits_per_byte"
)
AFTER = "downstream_glue downstream_super_glue downstream_squad downstream_mean corpus device"


@pytest.fixture
def study(tmp_path):
    return run_directories.write_study(tmp_path, ("glu", "transformer"), ("nano", "micro"), 2)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_columns_are_those_of_the_design(study):
    runs = read_study(study).runs
    tasks = [f"downstream_{task}" for task in run_directories.TASKS]
    assert list(runs.columns) == [*BEFORE.split(), *tasks, *AFTER.split()]
    assert runs.seed.dtype == np.int64 and runs.flops_forward.dtype == np.float64
    assert len(runs) == 8 and runs.run_id.is_unique


def test_every_evaluation_of_pretraining_is_kept_and_the_recipe(study):
    found = read_study(study)
    rows = found.histories
    nll = rows[(rows.run_id == "glu-nano-s0") & (rows.metric == "nll")]
    assert list(nll.step) == [50, 100] and nll.value.iloc[0] == pytest.approx(
        nll.value.iloc[1] + 0.5
    )
    assert set(rows.stage) == {"pretrain"}
    assert set(found.recipes.batch_size) == {32.0} and found.recipes.weight_decay.isna().all()


def test_the_mixture_of_a_run_is_kept_in_shares(study):
    path = study / "glu-nano-s0" / "config.json"
    stage = json.loads(path.read_text())["pretrain"]
    edit(path, pretrain=stage | {"sources": {"source": 3, "docs": 1.0, "none": 0}})
    mixture = read_study(study).recipes.set_index("run_id").mixture
    assert mixture.pop("glu-nano-s0") == "docs 0.25, source 0.75"
    assert set(mixture) == {""}
    edit(path, pretrain=stage | {"sources": {"docs": "much"}})
    with pytest.raises(InputError, match=r"config\.json: sources\.docs = 'much' is not a number"):
        read_study(study)


def test_measures_of_finished_runs_are_kept(study):
    rows = [
        {"step": 100, "measure": "rank_limited_head", "rank": None, "value": 2.5},
        {"step": 100, "measure": "rank_limited_head", "rank": 4, "value": 2.75},
        {"step": 100, "measure": "extraction", "split": "train", "value": 0.5},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (study / "glu-nano-s0" / records.MEASURES).write_text(lines)
    found = read_study(study).measures
    assert set(found.run_id) == {"glu-nano-s0"}
    assert found["rank"].isna().tolist() == [True, False, True]
    assert found["value"].tolist() == [2.5, 2.75, 0.5]


def test_paper_tasks_have_their_averages(tmp_path):
    path = run_directories.write_study(
        tmp_path, ("glu",), ("nano",), tasks=run_directories.PAPER_TASKS
    )
    runs = read_study(path).runs
    tasks = sorted(f"downstream_{task}" for task in run_directories.PAPER_TASKS if task != "squad")
    assert list(runs.columns) == [*BEFORE.split(), *tasks, *AFTER.split()]
    row = runs.iloc[0]
    glue = [
        row[f"downstream_{task}"]
        for task in run_directories.PAPER_TASKS
        if task.startswith("glue_")
    ]
    every = [row[f"downstream_{task}"] for task in run_directories.PAPER_TASKS]
    assert len(glue) == 8 and len(every) == 17
    assert row.downstream_glue == pytest.approx(np.mean(glue))
    assert row.downstream_mean == pytest.approx(np.mean(every))


def test_values_are_the_last_evaluation_and_the_median_speed(study):
    with (study / "glu-nano-s0" / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 101, "stage": "pretrain", "steps_per_second": 1e9, "tokens": 413696}\n'
        )
    row: Any = read_study(study).runs.set_index("run_id").loc["glu-nano-s0"]
    evals = [
        json.loads(line)
        for line in (study / "glu-nano-s0" / "evals.jsonl").read_text().splitlines()
    ]
    last = [e["value"] for e in evals if e["metric"] == "nll" and e["step"] == 100]
    assert (
        row.upstream_nll == last[0]
        and row.upstream_neg_log_ppl == -last[0]
        and row.upstream_nll_stderr == 0.02
    )
    assert row.steps_per_second == 10.0 and row.tokens_seen == 413696 and row.steps == 101


def test_bits_per_byte_are_kept(study):
    runs = read_study(study).runs
    np.testing.assert_allclose(runs.upstream_bits_per_byte, 0.4 * runs.upstream_nll)


def test_runs_of_a_directory_can_be_chosen_and_the_rest_is_reported(tmp_path):
    path = run_directories.write_study(
        tmp_path, ("glu", "transformer"), ("nano", "micro"), 2, protocols=("", "depth")
    )
    edit(path / "glu-nano-s0" / "status.json", state="failed")
    edit(path / "glu-nano-depth-s0" / "status.json", state="failed")
    read = read_study(path, ("protocol=depth", "size=nano"))
    assert set(read.runs.run_id) == {
        "glu-nano-depth-s1",
        "transformer-nano-depth-s0",
        "transformer-nano-depth-s1",
    }
    assert list(read.unfinished.run_id) == ["glu-nano-depth-s0"]
    for part in (read.evals, read.provenance, read.shapes, read.flops_by_part):
        assert set(part.run_id) == set(read.runs.run_id)
    assert read.settings.runs.max() == 3
    assert (
        read.warnings[0]
        == "11 of 14 finished runs are left out: they do not meet protocol=depth and size=nano."
    )
    assert any("1 of 4 runs failed" in warning for warning in read.warnings)
    assert read_study(path, ("seed=0,1",)).warnings == read_study(path).warnings
    with pytest.raises(InputError, match="no row has protocol=width"):
        read_study(path, ("protocol=width",))


def test_downstream_is_the_best_checkpoint_and_the_final_score_stays_in_the_evaluations(study):
    assert not any("best checkpoint" in warning for warning in read_study(study).warnings)
    path, task = study / "glu-nano-s0" / "evals.jsonl", run_directories.TASKS[0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    (final,) = [row for row in rows if (row["task"], row["metric"]) == (task, "score")]
    best = {
        **final,
        "metric": "best_score",
        "value": final["value"] + 5,
        "stderr": 0.5,
        "best_step": 40,
    }
    with path.open("a") as file:
        file.write(json.dumps(best) + "\n")
    read = read_study(study)
    first = read.runs.run_id == "glu-nano-s0"
    assert read.runs.loc[first, f"downstream_{task}"].item() == best["value"]
    assert read.evaluation_errors.loc[first, f"downstream_{task}"].item() == 0.5
    scores = (
        read.evals[(read.evals.run_id == "glu-nano-s0") & (read.evals.task == task)]
        .set_index("metric")
        .value
    )
    assert scores["score"] == final["value"]
    assert any("are 5.00 points lower on average" in warning for warning in read.warnings)


def test_failed_and_unfinished_runs_are_listed_and_warned_about(study):
    edit(
        study / "glu-nano-s0" / "status.json", state="failed", error="loss is nan at step 7", step=7
    )
    edit(study / "glu-nano-s1" / "status.json", state="running")
    (study / "glu-micro-s0" / "status.json").unlink()
    read = read_study(study)
    assert len(read.runs) == 5
    listed = read.unfinished.set_index("run_id")
    assert dict(listed.state) == {
        "glu-nano-s0": "failed",
        "glu-nano-s1": "running",
        "glu-micro-s0": "queued",
    }
    assert listed.error["glu-nano-s0"] == "loss is nan at step 7"
    text = " ".join(read.warnings)
    assert "1 of 8 runs failed" in text and "2 runs are not finished" in text


def test_a_torn_last_line_is_left_out_and_reported(study):
    path = study / "glu-nano-s0" / "evals.jsonl"
    whole = read_study(study).runs
    with path.open("a") as file:
        file.write('{"step": 200, "stage": "pretra')
    read = read_study(study)
    assert read.runs.equals(whole)
    assert any(
        "glu-nano-s0/evals.jsonl: the last line is torn" in warning for warning in read.warnings
    )


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("evals.jsonl", '{"step": "x", "stage": "pretrain"}\n', "row 1: step = 'x' has type str"),
        ("evals.jsonl", "not json\n", "row 1 is not JSON"),
        ("measures.jsonl", '{"step": 1, "measure": "x", "value": "y"}\n', "row 1: value = 'y'"),
        ("config.json", "[1]", "expected a JSON object"),
        (
            "config.json",
            '{"architecture": "glu", "size": "nano", "seed": "one"}',
            "seed = 'one' is not an integer",
        ),
        (
            "config.json",
            '{"architecture": 3, "size": "nano", "seed": 1}',
            "architecture = 3 is not a text",
        ),
        (
            "config.json",
            '{"architecture": "glu", "size": "nano", "seed": 1, '
            '"accounting": {"flops_forward": "big"}}',
            "accounting.flops_forward = 'big' is not a number",
        ),
        (
            "metrics.jsonl",
            '{"step": 1, "stage": "pretrain", "mfu": "high"}\n',
            "row 1: mfu = 'high' is not a number",
        ),
    ],
)
def test_a_wrong_record_is_one_line_that_names_file_and_row(study, file, content, said):
    (study / "glu-nano-s0" / file).write_text(content)
    with pytest.raises(InputError) as error:
        read_study(study)
    line = str(error.value)
    assert "\n" not in line and file in line and "glu-nano-s0" in line and said in line


def test_one_run_id_in_two_directories_is_refused(study):
    edit(study / "glu-nano-s1" / "config.json", run_id="glu-nano-s0")
    with pytest.raises(InputError, match="run_id 'glu-nano-s0' also stands in"):
        read_study(study)


def test_a_missing_score_makes_the_mean_unknown_and_is_reported(study):
    path = study / "glu-nano-s0" / "evals.jsonl"
    lines = [line for line in path.read_text().splitlines() if "python_match" not in line]
    path.write_text("\n".join(lines) + "\n")
    read = read_study(study)
    row = read.runs.set_index("run_id").loc["glu-nano-s0"]
    assert np.isnan(row.downstream_python_match) and np.isnan(row.downstream_mean)
    assert np.isfinite(row.downstream_python_package)
    assert any("python_match" in warning and "glu-nano-s0" in warning for warning in read.warnings)


def test_two_fingerprints_are_two_corpora(study):
    data = {"name": "python", "fingerprint": "ffffffffffff"}
    edit(study / "glu-nano-s0" / "config.json", data=data)
    read = read_study(study)
    assert any("2 different corpora" in warning for warning in read.warnings)
    assert set(read.runs.corpus) == {"python@ffffffff", "python@01234567"}
    with pytest.raises(InputError, match="corpus"):
        everything.analyse(read)


def test_a_study_without_finished_runs_reads_and_says_so(study):
    for path in study.glob("*/status.json"):
        edit(path, state="running")
    read = read_study(study)
    assert read.runs.empty and len(read.unfinished) == 8
    assert "No run of this study is finished" in read.warnings[0]
    with pytest.raises(InputError, match="no run is finished"):
        everything.analyse(read)


def test_no_runs_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        read_study(tmp_path)
    with pytest.raises(InputError, match="not a directory"):
        read_study(tmp_path / "nowhere")


def test_settings_and_provenance_come_from_the_records(study):
    read = read_study(study)
    settings = read.settings.set_index("setting")
    assert (
        settings.value["pretrain.optimizer.name"] == "adafactor"
        and settings.runs["pretrain.optimizer.name"] == 8
    )
    row = read.provenance.iloc[0]
    assert row.commit == "f5e5079" and row.corpus_fingerprint == "0123456789abcdef"
    assert row.versions == "flax 0.12.8, jax 0.10.2" and row.device == "1 x cpu"


def test_records_that_a_run_has_lost_are_warned_of(tmp_path):
    study = run_directories.write_study(tmp_path, sizes=("nano", "micro"))
    run = sorted(path for path in study.iterdir() if path.is_dir())[0]
    detail = "evals.jsonl has 2 rows where 7 stood when the checkpoint was saved"
    for event in ("resumed", records.LOST):
        records.append_jsonl(
            run / "events.jsonl",
            [{"step": 6, "stage": "pretrain", "event": event, "detail": detail}],
        )
    (told,) = [line for line in read_study(study).warnings if "lost" in line]
    assert told == f"{run.name}: records were lost before the run went on: {detail}."


def curve(table, name, task=""):
    """The points of one curve of the run `glu-nano-s0` as (step, tokens, value)."""
    part = table[(table.run_id == "glu-nano-s0") & (table.curve == name) & (table.task == task)]
    return list(part[["step", "tokens", "value"]].itertuples(index=False, name=None))


def test_learning_curves_have_what_was_recorded(tmp_path):
    path = run_directories.write_study(tmp_path, ("glu",), ("nano",), tasks=("a", "b"))
    run = records.RunWriter(path / "glu-nano-s0")
    base = {"stage": "finetune", "split": "validation", "n": 500, "stderr": 2.0}
    score = {**base, "metric": "score", "step": 20}
    run.evals([{**score, "task": "a", "value": 10.0}, {**score, "task": "b", "value": 20.0}])
    run.evals([{**score, "task": "a", "step": 30, "value": 11.0}])
    run.metrics({"stage": "finetune", "step": 20, "nll": 9.0})
    table = read_study(path)
    curves = learning_curves(table)
    loss = float(table.runs.upstream_nll.iloc[0])
    train = curve(curves, "train")
    assert [point[:2] for point in train] == [(50, 204800.0), (100, 409600.0)]
    assert curve(curves, "heldout") == [(50, 204800.0, loss + 0.5), (100, 409600.0, loss)]
    assert [point[0] for point in curve(curves, "score", "a")] == [20, 30, 40]
    # The mean needs every task, so it has no point at step 30.
    mean = curve(curves, "score", MEAN_OF_TASKS)
    assert [point[0] for point in mean] == [20, 40] and mean[0][2] == 15.0


def test_long_learning_curves_are_thinned_and_keep_their_ends(tmp_path):
    path = run_directories.write_study(tmp_path, ("glu",), ("nano",), tasks=("a",))
    rows = [
        {"stage": "pretrain", "step": step, "nll": 1.0 + 1 / step, "tokens": step}
        for step in range(101, 5001)
    ]
    records.append_jsonl(path / "glu-nano-s0" / "metrics.jsonl", rows)
    train = curve(learning_curves(read_study(path), 60), "train")
    assert len(train) == 60 and (train[0][0], train[-1][0]) == (50, 5000)
    steps = np.diff([point[0] for point in train])[1:]
    assert steps.max() - steps.min() <= 1


def test_learning_curves_of_broken_and_missing_records(tmp_path):
    path = run_directories.write_study(tmp_path, ("glu",), ("nano",), tasks=("a",))
    study = read_study(path)
    assert learning_curves(dataclasses.replace(study, paths={})).empty
    metrics = path / "glu-nano-s0" / "metrics.jsonl"
    metrics.write_text('{"stage": "pretrain", "step": 1, "nll": "low"}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl: row 1: nll = 'low' is not a number"):
        learning_curves(study)
    metrics.unlink()
    assert set(learning_curves(study).curve) == {"heldout", "score"}

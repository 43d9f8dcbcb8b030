"""The displays of a study, from records written by hand."""

import json

import pytest

from tests.train import tiny_study
from train import records
from train.__main__ import main
from train.study import watch
from train.study.config import identity
from train.study.directory import (
    ATTEMPTS,
    CellStatus,
    read_manifest,
    statuses,
    strangers,
    write_manifest,
)

STEPS = tiny_study.STAGE.steps


@pytest.fixture
def directory(tmp_path):
    """A study with a cell that runs at 4 steps a second after a failure, and a queued one."""
    write_manifest(tiny_study.study(), tmp_path)
    cell = tmp_path / "transformer-nano-s0"
    cell.mkdir()
    writer = records.RunWriter(cell, {"finished": ["pretrain"]})
    writer.metrics({"step": 2, "stage": "finetune", "steps_per_second": None})
    writer.metrics({"step": 4, "stage": "finetune", "steps_per_second": 4.0})
    writer.status("running", stage="finetune", step=4, nll=1.5)
    records.append_jsonl(cell / ATTEMPTS, [{"state": "failed", "error": "OSError: full"}])
    return tmp_path


def test_status_tells_progress_rate_time_left_loss_and_retries(directory):
    with records.lock(directory / "transformer-nano-s0"):
        running, queued = statuses(tiny_study.study(), directory)
    assert running == CellStatus(
        "transformer-nano-s0",
        "running",
        "finetune",
        STEPS + 4,
        2 * STEPS,
        1.5,
        4.0,
        (STEPS - 4) / 4.0,
        1,
        None,
    )
    assert queued == CellStatus(
        "glu-nano-s0", "queued", "", 0, 2 * STEPS, None, None, None, 0, None
    )
    lines = watch.table([running, queued])
    assert "16/24  4 steps/s       2 s left       nll 1.500   1 retry" in lines[0]
    assert lines[-1] == "1 running, 1 queued; 33 % of steps; about 8 s left; 1 retries"
    assert "about 16 s left" in watch.totals([running, queued], rate=2.0)


def test_a_cell_whose_process_is_gone_is_not_running(directory):
    (gone, _) = statuses(tiny_study.study(), directory)
    assert (gone.state, gone.rate, gone.left, gone.error) == (
        "preempted",
        None,
        None,
        "OSError: full",
    )


def test_runs_that_the_study_does_not_declare_are_reported(directory):
    assert strangers(tiny_study.study(), directory) == []
    (directory / "mos-nano-s0").mkdir()
    records.write_json(directory / "mos-nano-s0" / "config.json", {})
    assert strangers(tiny_study.study(), directory) == ["mos-nano-s0"]


def test_a_torn_last_row_is_no_rate(directory):
    with open(directory / "transformer-nano-s0" / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "stage": "finetune", "steps_per_sec')
    with records.lock(directory / "transformer-nano-s0"):
        assert statuses(tiny_study.study(), directory)[0].rate == 4.0


def test_what_a_file_says_moves_no_cursor_and_is_no_markup(directory):
    (directory / "glu-nano-s0").mkdir()
    records.RunWriter(directory / "glu-nano-s0").status(
        "failed", stage="pretrain", error="[/red] \x1b[2Jgone"
    )
    lines = watch.table(statuses(tiny_study.study(), directory))
    (line,) = [line for line in lines if "gone" in line]
    assert "\x1b" not in line
    assert watch._text(lines).plain == "\n".join(lines)


def test_watch_ends_with_the_study_and_tells_failures(directory, capsys):
    records.RunWriter(directory / "transformer-nano-s0").status(
        "failed", stage="finetune", step=4, error="OSError: full"
    )
    (directory / "glu-nano-s0").mkdir()
    records.RunWriter(directory / "glu-nano-s0").status("done")
    assert main(["watch", str(directory), "--every", "0.01"]) == 1
    said = capsys.readouterr().out
    assert "OSError: full" in said and "1 failed, 1 done" in said
    assert main(["watch", "nowhere"]) == 2
    assert "nowhere/study.json: no such file" in capsys.readouterr().err


def test_watch_stays_for_a_cell_that_is_tried_again(directory, monkeypatch):
    first, second = records.RunWriter(directory / "transformer-nano-s0"), directory / "glu-nano-s0"
    second.mkdir()
    records.RunWriter(second).status("done")
    first.status("failed", stage="finetune", step=4, error="OSError: full")
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: first.status("done"))
    assert watch.follow(directory, every=1.0) == 0


def test_a_changed_default_is_refused_with_the_difference(directory):
    model = {"architecture": "transformer", "size": "nano", "protocol": "", "seed": 0}
    study = tiny_study.study()
    from train.study import declare

    resolved = {**json.loads(json.dumps(identity(study.cells[0]))), **model}
    resolved["model"] = declare.model(study.cells[0], 296).to_dict() | {"mlp_dim": 999}
    resolved["data"] = {"vocab_size": 296}
    records.write_json(directory / "transformer-nano-s0" / "config.json", resolved)
    with pytest.raises(
        records.InputError,
        match=r"another configuration: model.mlp_dim: 999 -> 128; use another --runs",
    ):
        write_manifest(study, directory)
    # A run on an accelerator computes in bfloat16; the machine that continues the study may have no
    # accelerator.
    resolved["model"] = declare.model(study.cells[0], 296, accelerator=True).to_dict()
    records.write_json(directory / "transformer-nano-s0" / "config.json", resolved)
    write_manifest(study, directory)
    assert read_manifest(directory) == study


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(45, "45 s"), (90, "2 min"), (720, "12 min"), (12_240, "3.4 h"), (440_640, "5.1 d")],
)
def test_times_are_printed_in_readable_units(seconds, said):
    assert watch.clock(seconds) == said

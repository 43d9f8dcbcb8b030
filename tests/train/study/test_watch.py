"""The displays of a study, from records written by hand."""

import json

import pytest

from configs import presets
from tests.train import tiny_study
from train import records
from train.__main__ import main
from train.study import declare, watch
from train.study.config import identity, to_dict
from train.study.directory import (
    ATTEMPTS,
    MANIFEST,
    CellStatus,
    read_manifest,
    statuses,
    strangers,
    work,
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
        running, queued = statuses(study := tiny_study.study(), directory)
    assert running == CellStatus(
        "transformer-nano-s0",
        "running",
        "finetune",
        STEPS + 4,
        2 * STEPS,
        work(study.cells[0], 2**15),
        1.5,
        4.0,
        (STEPS - 4) / 4.0,
        1,
        None,
    )
    assert queued == CellStatus(
        "glu-nano-s0", "queued", "", 0, 2 * STEPS, running.work, None, None, None, 0, None
    )
    lines = watch.table([running, queued])
    assert "16/24  4 steps/s       2 s left       nll 1.500   1 retry" in lines[0]
    assert lines[-1] == "1 running, 1 queued; 33 % done; about 8 s left; 1 retry"
    of_a_step = running.work / (2 * STEPS)
    assert "about 16 s left" in watch.totals([running, queued], rate=2.0 * of_a_step)
    assert watch.now([running, queued]) == "transformer-nano-s0 nll 1.500"


def test_the_time_left_counts_a_large_model_for_more_than_a_small_one():
    cells = [presets.cpu("transformer", size) for size in ("centi", "nano")]
    small, large = sorted(work(cell, 2048) for cell in cells)
    exact = [declare.cost(cell, "flops", 2048) for cell in cells]
    assert large / small == pytest.approx(exact[0] / exact[1], rel=0.5)
    made = [
        CellStatus(cell.run_id, state, "", done, 10, work(cell, 2048), 2.5, None, None, 0, None)
        for cell, state, done in zip(cells, ("queued", "done"), (0, 10), strict=True)
    ]
    share = small / (small + large)
    assert watch.work_done(made) == small and share < 0.2
    # The small one took 10 s, and the large one has `large / small` times the work.
    assert (
        f"{100 * share:.0f} % done; about {watch.clock(large / small * 10)} left"
        in watch.totals(made, small / 10)
    )
    assert watch.news(made, {}) == [f"{cells[1].run_id}: done nll 2.500"]
    assert watch.news(made, {cells[1].run_id: "done"}) == []


def test_runs_without_a_manifest_have_a_status(directory, capsys):
    """`pretrain --study` makes such directories."""
    run = directory / "transformer-nano-s0"
    config = to_dict(tiny_study.study().cells[0])
    records.write_json(run / "config.json", {**config, "parallel": {"strategy": "pmap"}})
    (directory / MANIFEST).unlink()
    assert main(["status", str(directory)]) == 0
    assert "transformer-nano-s0  preempted  finetune  16/24" in capsys.readouterr().out
    (run / "config.json").unlink()
    assert main(["watch", str(directory)]) == 2
    assert "has neither study.json nor directories of runs" in capsys.readouterr().err


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
    assert "nowhere: is no directory" in capsys.readouterr().err


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

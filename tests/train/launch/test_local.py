"""The local launcher: two launchers on one study, killed workers, cells that keep failing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import kill_study
from tests.train import tiny_study
from tests.train.launch.contents import content
from tests.train.tiny_corpus import write_corpus
from train import records
from train.__main__ import main
from train.data.corpus import open_corpus
from train.launch import local
from train.launch.worker import EXIT_STOPPED, Worker
from train.run import loop
from train.study.config import StudyConfig
from train.study.directory import attempts, statuses, write_manifest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def manifest(tmp_path):
    """A written study of two cells, and its directory."""
    study = tiny_study.study()
    write_manifest(study, tmp_path)
    return study, tmp_path


def _worker(manifest, corpus, **options):
    study, directory = manifest
    alone = tuple((cell,) for cell in study.cells)
    settings = {"programs": alone, "launch": "here", "retries": 1, "stop": lambda: False, **options}
    return Worker(directory=directory, corpus=open_corpus(corpus, verify=False), **settings)


def _failing(monkeypatch, errors):
    """Makes `run_cell` raise the next of `errors`, or succeed if it is None.

    Returns a list of the calls.
    """
    from train.run import cell

    called = []

    def run_cell(config, corpus, directory, start_from, stop):
        called.append(config.run_id)
        directory.mkdir(exist_ok=True)
        if error := errors.pop(0):
            raise error
        records.RunWriter(directory).status("done")
        records.write_json(directory / "config.json", {"data": {"fingerprint": corpus.fingerprint}})
        return "done"

    monkeypatch.setattr(cell, "run_cell", run_cell)
    return called


def test_a_failed_cell_is_tried_again_and_then_given_up(manifest, corpus, monkeypatch, capsys):
    called = _failing(monkeypatch, [OSError("no space"), None, OSError("no space")])
    assert _worker(manifest, corpus).run() == 1
    assert called == ["transformer-nano-s0", "glu-nano-s0", "transformer-nano-s0"]
    rows = attempts(manifest[1] / "transformer-nano-s0")
    assert [(row["state"], row["error"]) for row in rows] == [("failed", "OSError: no space")] * 2
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[-1] == {
        "cell": "transformer-nano-s0",
        "state": "failed",
        "error": "OSError: no space",
    }
    found = {status.run_id: status for status in statuses(*manifest)}
    assert (found["transformer-nano-s0"].state, found["transformer-nano-s0"].retries) == (
        "failed",
        1,
    )
    assert found["glu-nano-s0"].state == "done"
    # The next launch tries again.
    called = _failing(monkeypatch, [None])
    assert _worker(manifest, corpus, launch="later").run() == 0
    assert called == ["transformer-nano-s0"]


def test_a_stop_is_reported_by_the_exit_code(manifest, corpus, monkeypatch):
    """Also if the signal went to another process of the cell, or if no cell is left.

    Slurm requeues the task because of this exit code.
    """
    called = _failing(monkeypatch, [None, loop.Preempted("pretrain at step 3 of 8")])
    assert _worker(manifest, corpus).run() == EXIT_STOPPED
    assert called == ["transformer-nano-s0", "glu-nano-s0"]


def test_what_would_fail_again_is_not_tried_again(manifest, corpus, monkeypatch):
    called = _failing(monkeypatch, [records.InputError("tasks: unknown"), None])
    assert _worker(manifest, corpus, retries=9).run() == 1
    assert called == ["transformer-nano-s0", "glu-nano-s0"]


def test_a_cell_that_another_process_runs_is_waited_for(manifest, corpus, monkeypatch):
    called = _failing(monkeypatch, [None, None])
    asked = []

    def stop():
        """Called before each attempt; the other process releases the cell after a while."""
        asked.append(None)
        if len(asked) == 8:
            held.__exit__(None, None, None)
        return False

    monkeypatch.setattr("train.launch.worker._WAIT_SECONDS", 0.01)
    held = records.lock(manifest[1] / "transformer-nano-s0")
    held.__enter__()
    assert _worker(manifest, corpus, stop=stop).run() == 0
    assert called == ["glu-nano-s0", "transformer-nano-s0"]
    assert len(asked) > 8


def _together(monkeypatch, errors):
    """Makes `run_seeds` raise the next of `errors`, or succeed if it is None.

    Returns the cells of each call.
    """
    from train.run import seeds

    called = []

    def run_seeds(runs, corpus, study, stop):
        called.append([run.run_id for run in runs])
        if error := errors.pop(0):
            raise error
        for run in runs:
            records.RunWriter(_made(study / run.run_id)).status("done")
            records.write_json(
                study / run.run_id / "config.json", {"data": {"fingerprint": corpus.fingerprint}}
            )
        return ["done"] * len(runs)

    monkeypatch.setattr(seeds, "run_seeds", run_seeds)
    return called


@pytest.fixture
def three_seeds(manifest):
    """A study of three seeds and another cell, their programs and names, and its directory."""
    study, directory = manifest
    first, other = study.cells
    seeds = tuple(dataclasses.replace(first, seed=seed) for seed in range(3))
    names = [cell.run_id for cell in seeds]
    for name in names:
        _made(directory / name)
    return (
        dataclasses.replace(study, cells=(first, other, *seeds[1:])),
        (seeds, (other,)),
        names,
        directory,
    )


def test_cells_of_a_program_run_together(three_seeds, corpus, monkeypatch):
    study, programs, names, directory = three_seeds
    alone, together = _failing(monkeypatch, [None]), _together(monkeypatch, [None])
    assert _worker((study, directory), corpus, programs=programs).run() == 0
    assert together == [names]
    assert alone == ["glu-nano-s0"]
    assert {len(attempts(directory / cell.run_id)) for cell in study.cells} == {1}


def test_done_and_locked_cells_do_not_run_with_the_others(three_seeds, corpus, monkeypatch):
    study, programs, names, directory = three_seeds
    alone, together = _failing(monkeypatch, [None] * 3), _together(monkeypatch, [None])
    records.RunWriter(directory / names[1]).status("done")
    fingerprint = open_corpus(corpus, verify=False).fingerprint
    records.write_json(directory / names[1] / "config.json", {"data": {"fingerprint": fingerprint}})
    with records.lock(directory / names[2]):
        worker = _worker((study, directory), corpus, programs=programs)
        assert worker._look_at(programs[0][0]) == "done"
    assert worker.run() == 0
    assert alone == [names[0], names[2], "glu-nano-s0"]
    assert together == []


def test_a_program_that_fails_is_tried_again_cell_by_cell(three_seeds, corpus, monkeypatch):
    """The program may have been too large for the device, which is no failure of its cells."""
    study, programs, names, directory = three_seeds
    alone, together = (
        _failing(monkeypatch, [None] * 4),
        _together(monkeypatch, [MemoryError("no room")]),
    )
    assert _worker((study, directory), corpus, programs=programs, retries=0).run() == 0
    assert together == [names]
    assert sorted(alone) == sorted(["glu-nano-s0", *names])
    for name in names:
        assert [row["state"] for row in attempts(directory / name)] == ["failed", "done"]


def test_a_failing_cell_does_not_fail_those_that_are_done(three_seeds, corpus, monkeypatch):
    study, programs, names, directory = three_seeds
    alone = _failing(monkeypatch, [loop.Diverged("again and again"), None])
    _together(monkeypatch, [None])
    from train.run import seeds

    well = seeds.run_seeds

    def run_seeds(runs, *rest, **more):
        well([runs[0], runs[2]], *rest, **more)
        raise loop.Diverged("again and again")

    monkeypatch.setattr(seeds, "run_seeds", run_seeds)
    assert _worker((study, directory), corpus, programs=programs).run() == 1
    assert alone == [names[1], "glu-nano-s0"]
    states = [[row["state"] for row in attempts(directory / name)] for name in names]
    assert states == [["done"], ["failed", "failed"], ["done"]]


def _made(directory):
    directory.mkdir(exist_ok=True)
    return directory


def test_all_cells_of_a_killed_worker_have_failed_once(manifest, corpus):
    study, directory = manifest
    pool = local.Pool(study, directory, corpus, 0)
    for cell in study.cells:  # both in one program
        _made(directory / cell.run_id)
        pool._queue.put((0, {"cell": cell.run_id, "state": "running", "error": None}))
    pool._hear()
    assert pool._may_restart(0, -9)
    for cell in study.cells:
        (row,) = attempts(directory / cell.run_id)
        assert (row["state"], row["error"]) == ("failed", "its worker was killed (signal 9)")
        assert row["together"] == 2  # which are retried separately, up to `retries` times each


def test_every_worker_has_its_core_or_its_gpu(monkeypatch, tmp_path):
    cpu, gpu = tiny_study.study(), StudyConfig("gpu", (tiny_study.run("glu"),))
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5})
        assert local._cores(cpu, 3) == [2, 5, 2]
        assert local._cores(cpu, 1) == [None]
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: H100'\necho 'GPU 1: H100'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local._gpus(gpu, 1) == [{}]
    assert (local.visible_gpus(gpu), local.visible_gpus(cpu)) == (["0", "1"], [])
    given = local._gpus(gpu, 4)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in given] == ["0", "1", "0", "1"]
    assert {one["XLA_PYTHON_CLIENT_MEM_FRACTION"] for one in given} == {"0.45"}
    assert local._gpus(cpu, 4) == [{}] * 4


def test_seeds_together_are_for_workers_of_one_gpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(local, "visible_gpus", lambda study: ["0", "1"])
    assert main(["study", "paper", "--runs", str(tmp_path), "--vmap-seeds", "always"]) == 2
    assert (
        "vmap_seeds: each worker must have one GPU, but one worker would have all 2; "
        "give --workers 2" in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def _launch(corpus, runs, *more):
    arguments = [
        "study",
        "--config",
        tiny_study.__file__,
        "--corpus",
        str(corpus),
        "--runs",
        str(runs),
        *more,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "train", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_launchers_share_a_study_and_survive_a_killed_worker(corpus, tmp_path):
    pair = [_launch(corpus, tmp_path, "--workers", "1") for _ in range(2)]
    until = time.monotonic() + 200
    while not list(tmp_path.glob("tiny/*/metrics.jsonl")) and time.monotonic() < until:
        time.sleep(0.05)
    for worker in kill_study.children(pair[0].pid):
        os.kill(worker, signal.SIGKILL)
    said = [process.communicate(timeout=400)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    done = [
        row for path in tmp_path.glob("tiny/*/attempts.jsonl") for row in records.read_jsonl(path)
    ]
    assert sorted(row["state"] for row in done).count("done") == 2  # each cell was finished once
    for config, metrics, _, state in content(tmp_path / "tiny").values():
        assert state == "done"
        steps = [(row["stage"], row["step"]) for row in metrics]
        assert len(steps) == len(set(steps)), config["run_id"]


@pytest.mark.slow
def test_the_workers_of_a_study_are_started_once_and_end_well(corpus, tmp_path, monkeypatch):
    """A worker that ends while a thread waits for its standard input must not abort."""
    study = dataclasses.replace(tiny_study.study(), corpus=str(corpus))
    write_manifest(study, tmp_path)
    started, start = [], local.Pool._start

    def spied(pool, number):
        started.append(start(pool, number))
        return started[-1]

    monkeypatch.setattr(local.Pool, "_start", spied)
    reports = local.run(study, tmp_path, corpus, 2)
    assert [worker.returncode for worker in started] == [0, 0]
    assert {report["state"] for report in reports.values()} == {"done"}
    logs = [path.read_text(errors="replace") for path in tmp_path.glob("worker-*.log")]
    assert len(logs) == 2
    assert not [log for log in logs if "Fatal Python error" in log or "Traceback" in log]


def test_what_a_library_prints_is_no_report(manifest, corpus):
    study, directory = manifest
    pool = local.Pool(study, directory, corpus, 0)
    lines = [
        "hello",
        "{torn",
        "[1]",
        '{"cell": 1}',
        '{"cell": "transformer-nano-s0", "state": "done", "error": null}',
    ]
    code = f"print({chr(10).join(lines)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    pool._listen(0, process)
    process.wait()
    pool._hear()
    assert pool.reports == {
        "transformer-nano-s0": {"cell": "transformer-nano-s0", "state": "done", "error": None}
    }
    assert (directory / "worker-0.log").read_text().splitlines() == lines[:-1]

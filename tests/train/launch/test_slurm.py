"""Slurm: the script that is submitted.

Also a real Slurm that runs a study through scancel, requeue and a killed daemon.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import tiny_study
from tests.train.launch import one_cell, six_cells, slurm_cluster, twelve_cells
from tests.train.launch.contents import content
from tests.train.tiny_corpus import write_corpus
from train.__main__ import main
from train.launch import slurm
from train.records import InputError
from train.study.directory import attempts, read_manifest, statuses

ROOT = Path(__file__).parents[3]
needs_slurm = pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing())


def test_the_script_is_an_array_of_the_cells(tmp_path):
    study = twelve_cells.study()
    resources = slurm.Resources(
        nodes=2, tasks_per_node=4, at_once=3, options=("--time=1:00:00",), retries=5
    )
    programs = [["transformer-nano-s0"], ["transformer-nano-s7", "transformer-nano-s8"]]
    text = slurm.script(study, tmp_path, tmp_path / "a corpus", programs, resources)
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    for option in (
        "array=0-1%3",
        "nodes=2",
        "ntasks-per-node=4",
        "requeue",
        "signal=TERM@120",
        "time=1:00:00",
    ):
        assert f"#SBATCH --{option}" in lines
    assert "  transformer-nano-s0" in lines
    assert "  'transformer-nano-s7 transformer-nano-s8'" in lines
    assert f"'{tmp_path}/a corpus'" in text
    assert '"$(wc -l < "$failures")" -le 5' in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_options_that_are_none_are_refused():
    with pytest.raises(InputError, match="option 'time=1' is not an option of sbatch"):
        slurm.Resources(options=("time=1",))
    with pytest.raises(InputError, match="nodes = 0"):
        slurm.Resources(nodes=0)


def test_seeds_together_are_for_one_process(tmp_path, capsys):
    arguments = ["slurm", "--config", twelve_cells.__file__, "--runs", str(tmp_path), "--dry-run"]
    assert main([*arguments, "--vmap-seeds", "always", "--nodes", "2"]) == 2
    assert "vmap_seeds: needs one process, not 2" in capsys.readouterr().err


def _queue(monkeypatch, lines, config="MaxArraySize            = 5\n"):
    """Replaces the answers of squeue and scontrol; the slow tests use the real ones."""
    said = {"squeue": "".join(f"{line}\n" for line in lines), "scontrol": config}
    monkeypatch.setattr(slurm, "_ask", lambda program, *rest: said[program])


def test_only_jobs_of_the_directorys_own_scripts_are_its_jobs(tmp_path, monkeypatch):
    """In a copied directory, the job numbers may belong to other jobs.

    Tasks without a number, or with too large a number, are ignored too.
    """
    here = tmp_path / "slurm"
    here.mkdir()
    row = {"job": "7", "cells": ["a b", "c"], "script": "1.sbatch"}
    (here / "submitted.jsonl").write_text(json.dumps(row) + "\n")
    mine, other = here / "1.sbatch", tmp_path / "elsewhere.sh"
    _queue(monkeypatch, [f"7|0|{mine}", f"8|1|{mine}"])
    assert slurm.queued(tmp_path) == {"a", "b"}
    others = [f"7|{task}|{other}" for task in ("N/A", 0, 1)]
    _queue(monkeypatch, [*others, f"7|9|{mine}", f"7|N/A|{mine}", "7|0|(null)"])
    assert slurm.queued(tmp_path) == set()


def test_the_largest_array_is_the_clusters(monkeypatch):
    _queue(monkeypatch, [])
    assert slurm.largest_array() == 5
    _queue(monkeypatch, [], "nothing of the kind")
    assert slurm.largest_array() == 1001


@needs_slurm
@pytest.mark.slow
def test_more_cells_than_an_array_may_have_go_in_several(corpus, tmp_path):
    with slurm_cluster.cluster("MaxArraySize=5") as cluster:
        cluster.run(
            "scontrol", "update", "PartitionName=test", "State=DOWN"
        )  # accepts jobs but starts none
        said = _train("slurm", twelve_cells, corpus, tmp_path, environment=cluster.environment)
        assert [line.split(": ")[1] for line in said.splitlines()] == [
            "5 cells of twelve; watch " + str(tmp_path / "twelve"),
            "5 cells of twelve; watch " + str(tmp_path / "twelve"),
            "2 cells of twelve; watch " + str(tmp_path / "twelve"),
        ]
        again = _train("slurm", twelve_cells, corpus, tmp_path, environment=cluster.environment)
        assert "no cell is left to submit; 12 are in the queue" in again
        shutil.copytree(tmp_path / "twelve", tmp_path / "copy" / "twelve")
        copied = _train(
            "slurm", twelve_cells, corpus, tmp_path / "copy", environment=cluster.environment
        )
        assert copied.count("cells of twelve") == 3  # the queued jobs write to the first directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _train(verb, declared, corpus, runs, *more, environment=None):
    arguments = [
        verb,
        "--config",
        declared.__file__,
        "--corpus",
        str(corpus),
        "--runs",
        str(runs),
        *more,
    ]
    command = [sys.executable, "-m", "train", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _states(cluster):
    """The state of every task in the queue, by its index."""
    lines = cluster.run(
        "squeue", "--noheader", "--array", "--states=all", "--format=%F %K %T"
    ).splitlines()
    return {int(task): (job, state) for job, task, state in map(str.split, lines)}


@needs_slurm
@pytest.mark.slow
def test_an_array_survives_scancel_requeue_and_a_killed_daemon(corpus, tmp_path):
    here = tmp_path / "slurm" / "six"
    with slurm_cluster.cluster() as cluster:
        cluster.run(
            "scontrol", "update", "PartitionName=test", "State=DOWN"
        )  # accepts jobs but starts none
        said = _train(
            "slurm", six_cells, corpus, tmp_path / "slurm", environment=cluster.environment
        )
        assert "6 cells of six" in said
        again = _train(
            "slurm", six_cells, corpus, tmp_path / "slurm", environment=cluster.environment
        )
        assert "no cell is left to submit; 6 are in the queue" in again
        cluster.run("scontrol", "update", "PartitionName=test", "State=UP")

        def running():
            return [task for task, (_, state) in _states(cluster).items() if state == "RUNNING"]

        def started():
            return [
                task
                for task in running()
                if (here / f"transformer-nano-s{task}" / "metrics.jsonl").exists()
            ]

        cluster.wait(lambda: len(started()) >= 2, 120)
        job = _states(cluster)[0][0]
        cancelled, requeued = started()[:2]
        cluster.run("scancel", f"{job}_{cancelled}")
        cluster.run("scontrol", "requeue", f"{job}_{requeued}")
        before = set(running()) | {cancelled, requeued}
        cluster.wait(lambda: set(started()) - before, 120)
        stopped = (
            set(started()) - before
        ).pop()  # as the time limit does it: it saves, and requeues itself
        # Not waited for: if the task is requeued meanwhile, scancel keeps trying for minutes.
        signalling = subprocess.Popen(
            ["scancel", "--signal=TERM", f"{job}_{stopped}"], env=cluster.environment
        )

        def came_back():
            log = (here / "slurm" / f"{job}_{stopped}.log").read_text(encoding="utf-8")
            return (
                _states(cluster)[stopped][1] == "PENDING"
                or log.count('"running"') > 1
                or '"done"' in log
            )

        cluster.wait(came_back, 60)
        signalling.kill()
        signalling.wait()
        cluster.wait(started, 120)
        cluster.kill_node()
        cluster.wait(
            lambda: not running(), 120
        )  # the controller gives up on the node and requeues its jobs
        cluster.start_node()
        cluster.wait(
            lambda: all(
                state in ("COMPLETED", "CANCELLED") for _, state in _states(cluster).values()
            ),
            400,
        )
        assert _states(cluster)[cancelled][1] == "CANCELLED"

        said = _train(
            "slurm", six_cells, corpus, tmp_path / "slurm", environment=cluster.environment
        )
        assert (
            "1 cells of six" in said or "no cell is left" in said
        )  # it may have finished before it was cancelled
        cluster.wait(lambda: not cluster.run("squeue", "--noheader").strip(), 200)
    assert {s.state for s in statuses(read_manifest(here), here)} == {"done"}
    _train("study", six_cells, corpus, tmp_path / "local")
    assert content(here) == content(tmp_path / "local" / "six")


@needs_slurm
@pytest.mark.slow
def test_twelve_seeds_in_one_task_are_stopped_and_continue(corpus, tmp_path):
    here = tmp_path / "twelve"
    together = ["--vmap-seeds", "always"]
    with slurm_cluster.cluster() as cluster:
        cluster.run(
            "scontrol", "update", "PartitionName=test", "State=DOWN"
        )  # accepts jobs but starts none
        _train("slurm", twelve_cells, corpus, tmp_path, *together, environment=cluster.environment)
        again = _train(
            "slurm", twelve_cells, corpus, tmp_path, *together, environment=cluster.environment
        )
        assert "no cell is left to submit; 12 are in the queue" in again
        ((job, _),) = _states(cluster).values()
        cluster.run("scontrol", "update", "PartitionName=test", "State=UP")
        cluster.wait(
            lambda: all((here / name / "metrics.jsonl").exists() for name in _names()), 200
        )
        subprocess.run(
            ["scancel", "--signal=TERM", f"{job}_0"],
            env=cluster.environment,
            check=True,
            timeout=100,
        )
        cluster.wait(
            lambda: not cluster.run("squeue", "--noheader").strip(), 300
        )  # it requeued itself
    assert {s.state for s in statuses(read_manifest(here), here)} == {"done"}
    for name in _names():
        (stopped, done) = attempts(here / name)
        assert (stopped["state"], stopped["together"], done["state"], done["together"]) == (
            "preempted",
            12,
            "done",
            12,
        )


def _names():
    return [cell.run_id for cell in twelve_cells.study().cells]


@needs_slurm
@pytest.mark.slow
def test_a_cell_of_two_processes_gives_the_records_of_one(corpus, tmp_path):
    # With a low rate: if a gradient is nearly zero, Adafactor turns rounding errors into whole
    # updates.
    slow = [f"--set={stage}.optimizer.learning_rate=0.01" for stage in ("pretrain", "finetune")]
    _train("study", one_cell, corpus, tmp_path / "one", *slow)
    with slurm_cluster.cluster() as cluster:
        more = ["--tasks-per-node", "2", "--cells", "glu-*", *slow]
        _train(
            "slurm", tiny_study, corpus, tmp_path / "two", *more, environment=cluster.environment
        )
        cluster.wait(lambda: not cluster.run("squeue", "--noheader").strip(), 300)
    two = content(tmp_path / "two" / "tiny")
    assert list(two) == ["glu-nano-s0"]
    config, metrics, evals, state = two["glu-nano-s0"]
    expected = content(tmp_path / "one" / "tiny")["glu-nano-s0"]
    assert (config["hash"], state) == (expected[0]["hash"], "done")
    assert [row["step"] for row in metrics] == [row["step"] for row in expected[1]]
    for mine, theirs in zip([*metrics, *evals], [*expected[1], *expected[2]], strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():  # sums over two processes are computed in another order
            assert mine[key] == (
                pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
            ), (key, mine)

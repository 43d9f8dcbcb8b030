"""A complete study with two very small cells: run, killed at any moment, run again."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train import tiny_study
from tests.train.launch.contents import content
from tests.train.tiny_corpus import write_corpus
from train.__main__ import EXIT_STOPPED, main
from train.study.directory import read_manifest, statuses

STEPS = tiny_study.STAGE.steps


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _command(corpus, runs, *more):
    config = Path(tiny_study.__file__)
    arguments = [
        "study",
        "--config",
        str(config),
        "--corpus",
        str(corpus),
        "--runs",
        str(runs),
        *more,
    ]
    return [sys.executable, "-m", "train", *arguments]


@pytest.fixture(scope="session")
def finished(corpus, tmp_path_factory):
    """Both cells, run without any interruption."""
    runs = tmp_path_factory.mktemp("runs")
    done = subprocess.run(_command(corpus, runs), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert f"2 of 2 cells are done; the runs are in {runs / 'tiny'}" in done.stdout
    return runs / "tiny"


@pytest.mark.slow
def test_the_records_are_complete(finished):
    found = content(finished)
    assert sorted(found) == ["glu-nano-s0", "transformer-nano-s0"]
    for name, (config, metrics, evals, state) in found.items():
        assert (config["run_id"], state) == (name, "done")
        assert config["accounting"]["flops_forward"] > 0
        assert config["accounting"]["state_size"] > 0
        every_second = [step for step in range(2, STEPS + 1, 2)]
        assert [row["step"] for row in metrics] == 2 * every_second
        upstream = {
            row["metric"]: row for row in evals if row["task"] == "corpus" and row["step"] == STEPS
        }
        assert upstream["nll"]["value"] < upstream["unigram_nll"]["value"]
        assert upstream["nll"]["stderr"] > 0
        assert upstream["perplexity"]["value"] == pytest.approx(math.exp(upstream["nll"]["value"]))
        bytes_per_token = (
            upstream["nll"]["value"] / math.log(2) / upstream["bits_per_byte"]["value"]
        )
        assert 0.2 < bytes_per_token < 5  # pieces of a small vocabulary; sentinels have no bytes
        downstream = {
            row["metric"]: row
            for row in evals
            if row["task"] == "python_subject" and row["step"] == STEPS
        }
        assert set(downstream) == {"accuracy", "score", "majority_class", "best_score"}
        assert downstream["score"]["n"] == 16
        scores = {row["step"]: row["value"] for row in evals if row["metric"] == "score"}
        assert sorted(scores) == [STEPS // 2, STEPS]
        best = downstream["best_score"]
        assert best["value"] == scores[best["best_step"]] == max(scores.values())
    assert len({config["hash"] for config, *_ in found.values()}) == 2


@pytest.mark.slow
def test_a_second_run_repeats_nothing(finished, corpus):
    before = {
        path: path.read_bytes()
        for path in finished.rglob("*")
        if path.is_file() and path.suffix == ".jsonl"
    }
    again = subprocess.run(
        _command(corpus, finished.parent), capture_output=True, text=True, timeout=500
    )
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_killed_launcher_takes_its_workers_along_and_nothing_is_lost(finished, corpus, tmp_path):
    """Kill -9 of the launcher at a random moment.

    test_faults.py kills the trainer itself, many times.
    """
    chance, progress = random.Random(0), tmp_path / "tiny"
    process = subprocess.Popen(
        _command(corpus, tmp_path), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline, goal = time.monotonic() + 200, chance.randint(2, 8)
    while _rows(progress) < goal and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    last = subprocess.run(_command(corpus, tmp_path), capture_output=True, text=True, timeout=500)
    assert last.returncode == 0, last.stderr
    assert content(progress) == content(finished)


def _rows(directory):
    return sum(path.read_bytes().count(b"\n") for path in directory.glob("*/*.jsonl"))


@pytest.mark.slow
def test_sigterm_saves_and_says_so(finished, corpus, tmp_path):
    process = subprocess.Popen(
        _command(corpus, tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while not _rows(tmp_path / "tiny") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=200)
    assert process.returncode == EXIT_STOPPED, said
    assert "run it again to continue" in said
    found = statuses(tiny_study.study(), tmp_path / "tiny")
    assert not any(status.state == "running" for status in found)
    assert (
        subprocess.run(_command(corpus, tmp_path), capture_output=True, timeout=500).returncode == 0
    )
    assert content(tmp_path / "tiny") == content(finished)


@pytest.mark.slow
def test_changed_settings_are_refused_with_the_difference(finished, corpus):
    before = content(finished)
    command = _command(corpus, finished.parent, "--set", "pretrain.steps=5")
    refused = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert refused.returncode == 2
    assert "the run there has another configuration: pretrain.steps: 12 -> 5" in refused.stderr
    assert content(finished) == before
    assert {cell.total for cell in statuses(read_manifest(finished), finished)} == {2 * STEPS}


@pytest.mark.slow
def test_status_shows_every_cell(finished, capsys):
    assert main(["status", str(finished), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(cell["run_id"], cell["state"], cell["done"]) for cell in found] == [
        ("transformer-nano-s0", "done", 2 * STEPS),
        ("glu-nano-s0", "done", 2 * STEPS),
    ]


@pytest.mark.slow
def test_the_loop_imports_no_tensorflow():
    code = (
        "import sys, train.run.loop, train.run.cell; print([m for m in sys.modules if m in "
        "('tensorflow', 'seqio')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "nope"], "study 'nope' is unknown; known: batch_size, capacity, cpu,"),
        (["study", "--config", "nope.py"], "config: 'nope.py' is not a file"),
        (["study", "cpu", "--corpus", "nowhere"], "corpus: 'nowhere' is not a directory"),
        (["study", "cpu", "--set", "model.sizes=3"], "transformer: unknown key 'sizes'"),
        (["study", "cpu", "--set", "pretrain.sizes=3"], "set.pretrain: unknown key 'sizes'"),
        (["study", "cpu", "--set", "pretrain.steps"], "set: 'pretrain.steps' is not KEY=VALUE"),
        (["study", "cpu", "--flag"], "Unrecognized options: --flag"),
        (["study", "cpu", "--workers", "two"], "--workers: 'two' is not a whole number"),
        (["pretrain", "--preset", "nope"], "preset = 'nope' is not one of cpu, cpu_text, t5"),
        (["pretrain", "--corpus", "nowhere"], "corpus: 'nowhere' is not a directory"),
        (["status", "nowhere"], "nowhere: is no directory"),
        (["nope"], "Unrecognized options: nope"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--architecture", "architecture 'nope' is unknown"), ("--size", "size 'nope' is unknown")],
)
def test_unknown_architectures_and_sizes_are_refused(corpus, flag, message, tmp_path, capsys):
    assert main(["pretrain", "--corpus", str(corpus), "--runs", str(tmp_path), flag, "nope"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="no /proc, which no user can write")
def test_an_unwritable_directory_is_refused(corpus, capsys):
    assert (
        main(
            [
                "study",
                "--config",
                tiny_study.__file__,
                "--corpus",
                str(corpus),
                "--runs",
                "/proc/nothing",
            ]
        )
        == 2
    )
    assert "cannot be written" in capsys.readouterr().err
    assert main(["pretrain", "--corpus", str(corpus), "--runs", "/proc/nothing"]) == 2
    assert "cannot be written" in capsys.readouterr().err

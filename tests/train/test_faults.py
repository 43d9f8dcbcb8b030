"""What a machine can do to a run: kill it, fill its disk, take away its directory.

Nothing is lost in any of these cases.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.data.corpus import open_corpus
from train.records import InputError
from train.run import cell

STAGE = dataclasses.replace(tiny_study.STAGE, eval_every=0, checkpoint_every=2, keep_every=2)
CONFIG = dataclasses.replace(tiny_study.run("transformer"), finetune=None, pretrain=STAGE)
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fault_injection.py"

# If one write or read of a checkpoint fails, Orbax abandons the others, and Python warns about it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def corpus(path):
    return open_corpus(path)


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    cell.run_cell(CONFIG, corpus, directory, quiet=True)
    return directory


def _content(directory):
    """The metrics without the clock, and the checksums of the last checkpoint."""
    metrics = records.without_clock(records.read_run(directory).metrics)
    meta = directory / "checkpoints" / "pretrain" / str(STAGE.steps) / "meta" / "metadata"
    return metrics, json.loads(meta.read_text())["checksums"]


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(path):
    command = [
        sys.executable,
        str(BENCHMARK),
        "--corpus",
        str(path),
        "--cells",
        "transformer:pmap",
        "--kills",
        "4",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout)
    assert tally["different"] == []
    assert tally["kills"] >= 3


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; it is unmounted at the end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1100k", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("mount"), reason="no mount command, which makes the small disk"
)
def test_a_full_disk_is_named_and_costs_nothing_that_was_saved(corpus, undisturbed, small_disk):
    with pytest.raises(OSError, match=f"No space left on device: '{small_disk}/run"):
        cell.run_cell(CONFIG, corpus, small_disk / "run", quiet=True)
    saved = sorted(
        int(p.name)
        for p in (small_disk / "run" / "checkpoints" / "pretrain").iterdir()
        if p.name.isdigit()
    )
    assert saved, "the test is to fill the disk after the first checkpoint"
    assert saved[-1] < STAGE.steps
    subprocess.run(
        ["mount", "-o", "remount,size=64m", str(small_disk)], check=True
    )  # now there is room again
    assert cell.run_cell(CONFIG, corpus, small_disk / "run", quiet=True) == "done"
    assert _content(small_disk / "run") == _content(undisturbed)
    (event,) = records.read_jsonl(small_disk / "run" / "events.jsonl")
    assert (event["event"], event["step"]) == ("resumed", saved[-1])


@pytest.mark.skipif(
    not shutil.which("mount"), reason="no mount command, which makes the read-only disk"
)
def test_a_directory_that_turns_read_only_is_refused_in_one_line(corpus, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(InputError, match="cannot be written") as error:
        cell.run_cell(CONFIG, corpus, small_disk / "run", quiet=True)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_deleted_array_file_costs_only_its_own_checkpoint(corpus, undisturbed, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(undisturbed, directory)
    newest = directory / "checkpoints" / "pretrain" / str(STAGE.steps)
    max(
        (path for path in (newest / "params").rglob("*") if path.is_file()),
        key=lambda p: p.stat().st_size,
    ).unlink()
    status = records.read_json(directory / "status.json")
    records.write_json(directory / "status.json", status | {"state": "running", "finished": []})
    assert cell.run_cell(CONFIG, corpus, directory, quiet=True) == "done"
    assert _content(directory) == _content(undisturbed)
    (event,) = records.read_jsonl(directory / "events.jsonl")
    assert (event["event"], event["step"]) == ("resumed", STAGE.steps - 2)
    assert (directory / "checkpoints" / "pretrain-damaged" / str(STAGE.steps)).is_dir()


@pytest.mark.slow
def test_a_second_trainer_leaves_the_first_alone(corpus, undisturbed, tmp_path):
    """The second one is started from inside the first, between two of its steps."""
    seen = []

    def ask():
        if len(seen) == 3:
            seen.append(cell.run_cell(CONFIG, corpus, tmp_path, quiet=True))
        else:
            seen.append(None)
        return False

    assert cell.run_cell(CONFIG, corpus, tmp_path, stop=ask, quiet=True) == "done"
    assert seen[3] == "locked"
    assert _content(tmp_path) == _content(undisturbed)


def test_a_benchmark_refuses_a_path_without_a_corpus(tmp_path):
    command = [sys.executable, "-m", "benchmarks.fault_injection", "--corpus", str(tmp_path)]
    refused = subprocess.run(
        command, cwd=BENCHMARK.parents[1], capture_output=True, text=True, timeout=100
    )
    assert refused.returncode == 2
    assert f"corpus: {tmp_path / 'corpus.json'} is missing" in refused.stderr.splitlines()[-1]

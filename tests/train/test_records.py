"""Run records: what a kill, a full disk or a hand-edited file can do to them."""

import json
import os
import subprocess
import sys

import pytest

from train import records
from train.records import InputError, RunWriter

CONFIG = {"run_id": "a"}
EVAL = {
    "step": 1,
    "stage": "pretrain",
    "task": "corpus",
    "split": "validation",
    "metric": "nll",
    "value": 1.0,
    "n": 2,
}


@pytest.fixture
def writer(tmp_path):
    writer = RunWriter(tmp_path)
    writer.config(CONFIG, {"host": "h"})
    return writer


def test_what_is_written_is_read_back(writer):
    writer.metrics({"step": 1, "stage": "pretrain", "loss": 2.5})
    writer.evals([{**EVAL, "stderr": 0.1}])
    writer.status("running", stage="pretrain", step=1)
    run = records.read_run(writer.path)
    assert (run.config, run.env) == (CONFIG, {"host": "h"})
    assert run.metrics == [{"step": 1, "stage": "pretrain", "loss": 2.5}]
    assert run.evals == [{**EVAL, "stderr": 0.1}]
    assert run.status["state"] == "running"
    assert records.find_runs(writer.path) == [writer.path]


def test_numbers_that_are_not_finite_become_null(writer):
    writer.metrics({"step": 1, "stage": "pretrain", "loss": float("nan"), "more": [float("inf")]})
    assert (writer.path / "metrics.jsonl").read_text() == (
        '{"step": 1, "stage": "pretrain", "loss": null, "more": [null]}\n'
    )


def test_a_torn_last_line_is_an_error_that_names_it(writer):
    writer.metrics({"step": 1, "stage": "pretrain"})
    with open(writer.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "sta')
    with pytest.raises(InputError, match=r"metrics\.jsonl: row 2 is torn"):
        records.read_run(writer.path)
    assert len(records.read_run(writer.path, allow_torn=True).metrics) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": "1", "stage": "pretrain"}', "row 2: step = '1' has type str"),
        ('{"step": true, "stage": "pretrain"}', "row 2: step = True has type bool"),
        (
            '{"step": 1, "stage": "train"}',
            "row 2: stage = 'train' is not one of pretrain, finetune",
        ),
        ('{"stage": "pretrain"}', "row 2 has no 'step'"),
        ("[1]", "row 2 is a list"),
        ("{", "row 2 is not JSON"),
    ],
)
def test_a_wrong_row_is_an_error_of_one_line(writer, line, message):
    writer.metrics({"step": 1, "stage": "pretrain"})
    with open(writer.path / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError) as error:
        records.read_run(writer.path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_cut_keeps_what_a_checkpoint_covers_and_drops_a_torn_line(writer):
    for stage in records.STAGES:
        for step in (1, 2, 3):
            writer.metrics({"step": step, "stage": stage})
            writer.evals([{**EVAL, "step": step, "stage": stage, "stderr": None}])
    with open(writer.path / "evals.jsonl", "a") as file:
        file.write('{"torn')
    writer.cut("finetune", 1)
    expected = [("pretrain", 1), ("pretrain", 2), ("pretrain", 3), ("finetune", 1)]
    run = records.read_run(writer.path)
    assert [(row["stage"], row["step"]) for row in run.metrics] == expected
    assert [(row["stage"], row["step"]) for row in run.evals] == expected
    writer.cut("pretrain", 0)
    assert records.read_run(writer.path).evals == []


def test_json_is_replaced_whole_or_not_at_all(writer):
    before = (writer.path / "config.json").read_bytes()
    with pytest.raises(TypeError):
        records.write_json(writer.path / "config.json", {"not JSON": object()})
    assert (writer.path / "config.json").read_bytes() == before
    assert not list(writer.path.glob("*.tmp*"))


def test_half_written_files_are_removed_at_the_next_start(writer):
    (writer.path / "status.json.tmp-1").write_text('{"sta')
    writer.config(CONFIG, {})
    assert sorted(path.name for path in writer.path.iterdir()) == ["config.json", "env.json"]


def test_the_lock_is_for_one_and_dies_with_its_process(tmp_path):
    hold = """if True:
        import sys, time
        from train import records
        with records.lock(sys.argv[1]) as free:
            print(free, flush=True)
            time.sleep(60)"""
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    with records.lock(tmp_path, patience=0.1) as free:
        assert not free
    process.kill()
    process.wait()
    process.stdout.close()
    with records.lock(tmp_path) as free:
        assert free


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="no /proc, which no user can write")
def test_an_unwritable_directory_is_an_error_of_one_line():
    with pytest.raises(InputError, match="cannot be written"), records.lock("/proc/nothing/here"):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full, which is always full")
def test_a_full_disk_is_an_os_error(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        RunWriter(tmp_path).metrics({"step": 1, "stage": "pretrain"})


def test_only_the_standard_library_is_imported():
    code = (
        "import sys, json, train.records; print(json.dumps([m for m in sys.modules if '.' not in "
        "m]))"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    outside = set(json.loads(found.stdout)) - set(sys.stdlib_module_names) - {"train", "__main__"}
    assert not outside

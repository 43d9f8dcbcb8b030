"""`prepare` as a user runs it: in a separate process, on a small library."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.train.data.python_library import copy_library
from train import records
from train.data import batches, corpus, part_files, shards
from train.data.batch_shape import BatchShape
from train.data.prepare import prepare
from train.data.prepare_config import PrepareConfig
from train.data.text import python_text
from train.data.text.vocabulary import EOS_ID
from train.records import InputError

_ROOT = Path(__file__).resolve().parents[3]
_ARGUMENTS = ("--vocab-size", "1024", "--num-shards", "5", "--vocabulary-characters", "200000")
_EVERY_PART = ("--log-every", "0")


def _start(out, library, *arguments, log):
    command = [
        sys.executable,
        "-m",
        "train",
        "prepare",
        "--out",
        str(out),
        "--python-root",
        str(library),
        *_ARGUMENTS,
        *_EVERY_PART,
        *arguments,
    ]
    with open(log, "w") as file:
        return subprocess.Popen(command, cwd=_ROOT, stderr=file, stdout=subprocess.DEVNULL)


def _run(out, library, *arguments):
    log = out.with_suffix(".log")
    assert _start(out, library, *arguments, log=log).wait(timeout=400) == 0, log.read_text()
    return [line for line in log.read_text().splitlines() if line.startswith("prepare: ")]


def _made(lines):
    return {
        line.split()[1].rstrip(":")
        for line in lines
        if "/" in line.split()[1] and "tokens," not in line
    }


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return copy_library(tmp_path_factory.mktemp("library") / "lib")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, library):
    out = tmp_path_factory.mktemp("prepared") / "corpus"
    return out, _run(out, library)


@pytest.mark.slow
def test_prepare_makes_a_corpus_a_trainer_can_read(prepared):
    out, _ = prepared
    opened = corpus.open_corpus(out)
    assert opened.vocab_size == 1024 and opened.num_sentinels == 100 and opened.name == "python"
    assert len(opened.tokens("train")) == 5
    stream = np.concatenate(opened.tokens("train"))
    assert (
        stream.dtype == np.uint16
        and opened.num_tokens("train") == len(stream)
        and stream.max() < 924
    )
    assert opened.decode(stream).strip()
    assert set(opened.tasks) == {
        f"python_{n}" for n in ("package", "signature", "follows", "shuffled", "answer")
    }
    for name, task in opened.tasks.items():
        assert 0 < task.majority_class < 60
        (first, *_) = batches.evaluation(opened, name, BatchShape(4, 128, 16))
        assert (
            opened.decode(first.batch["decoder_target_tokens"][0]) == first.references[0]["target"]
        )
        assert opened.decode(first.batch["encoder_input_tokens"][0])
    bytes_of_text = sum(opened.vocabulary.bytes_per_piece[stream])
    assert bytes_of_text - opened.index["pretrain"]["train"]["text_bytes"] == np.sum(
        stream == 1
    )  # one space per document


@pytest.mark.slow
def test_every_document_is_in_its_part(prepared, library):
    opened = corpus.open_corpus(prepared[0])
    text = python_text.read(str(library))
    for split in ("train", "validation"):
        expected = {"topics": set(), "docstrings": set(), "source": set()}
        for document, part in text.split(split).documents().items():
            expected[part].add(document.strip())
        for part, tokens in opened.parts(split).items():
            documents = np.split(tokens, np.flatnonzero(tokens == EOS_ID) + 1)[:-1]
            assert documents and {opened.decode(d).strip() for d in documents} <= expected[part]
        assert sum(map(len, opened.parts(split).values())) == opened.num_tokens(split)


@pytest.mark.slow
def test_a_second_run_makes_nothing_and_loads_nothing(prepared, library):
    out, _ = prepared
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert _run(out, library) == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.slow
def test_damage_is_repaired_in_its_own_part(prepared, library):
    out, _ = prepared
    fingerprint = corpus.open_corpus(out).fingerprint
    shard = out / "pretrain/train-00003.npy"
    content = bytearray(shard.read_bytes())
    content[300] ^= 1
    shard.write_bytes(content)
    (out / "tasks/python_follows/train.inputs.npy").unlink()
    with pytest.raises(InputError, match=r"train-00003|python_follows"):
        corpus.open_corpus(out)
    assert _made(_run(out, library)) == {"pretrain/train-00003", "tasks/python_follows/train"}
    assert corpus.open_corpus(out).fingerprint == fingerprint


@pytest.mark.slow
def test_a_killed_prepare_continues_and_ends_the_same(prepared, library, tmp_path):
    out, lines = prepared
    process = _start(tmp_path / "killed", library, log=tmp_path / "log")
    while not (tmp_path / "killed/parts/pretrain.train-00001.json").exists():
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(InputError, match="has not finished"):
        corpus.open_corpus(tmp_path / "killed")
    again = _made(_run(tmp_path / "killed", library))
    assert (
        again
        and not again & {"pretrain/train-00000", "pretrain/train-00001"}
        and again < _made(lines)
    )
    assert (
        corpus.open_corpus(tmp_path / "killed").fingerprint == corpus.open_corpus(out).fingerprint
    )


@pytest.mark.slow
def test_workers_share_the_work_and_agree(prepared, library, tmp_path):
    out, lines = prepared
    logs = [tmp_path / f"log{i}" for i in range(2)]
    workers = [
        _start(tmp_path / "shared", library, "--worker", f"{i}/2", log=log)
        for i, log in enumerate(logs)
    ]
    assert [worker.wait(timeout=400) for worker in workers] == [0, 0], [
        log.read_text() for log in logs
    ]
    made = [
        _made(
            line
            for line in log.read_text().splitlines()
            if " waiting " not in line and " in " in line
        )
        for log in logs
    ]
    assert made[0] and made[1] and not made[0] & made[1] and made[0] | made[1] == _made(lines)
    assert (
        corpus.open_corpus(tmp_path / "shared").fingerprint == corpus.open_corpus(out).fingerprint
    )


@pytest.mark.slow
def test_the_parts_of_a_dead_worker_are_made_by_the_rest(prepared, library, tmp_path):
    out, lines = prepared
    logs = [tmp_path / f"log{i}" for i in range(2)]
    dead, left = (
        _start(tmp_path / "shared", library, "--worker", f"{i}/2", "--patience", "3", log=log)
        for i, log in enumerate(logs)
    )
    while not (tmp_path / "shared/parts/pretrain.train-00000.json").exists():
        assert dead.poll() is None, logs[0].read_text()
        time.sleep(0.02)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert left.wait(timeout=400) == 0, logs[1].read_text()
    assert re.search(
        "worker 0 gave no sign of life for 3 s: [a-z0-9/-]+ is made here", logs[1].read_text()
    )
    assert (
        corpus.open_corpus(tmp_path / "shared").fingerprint == corpus.open_corpus(out).fingerprint
    )


def test_a_team_waits_for_the_living_only(tmp_path):
    (tmp_path / "parts").mkdir()
    here, other = (part_files.Team(tmp_path, i, 3, patience=0.4) for i in (0, 1))
    assert not here.alive(0)
    with other:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert here.alive(1)
            here.alive(2)
            time.sleep(0.05)
    assert not here.alive(2)  # it never started
    until = time.monotonic() + 2
    while here.alive(1) and time.monotonic() < until:
        time.sleep(0.05)
    assert not here.alive(1)  # as long as it gives no sign of life
    for number in range(3):
        assert sorted(part_files.Team(tmp_path, number, 3, 1).order(10)) == list(range(10))
        assert part_files.Team(tmp_path, number, 3, 1).order(10)[
            : len(range(number, 10, 3))
        ] == list(range(number, 10, 3))


def test_bad_values_are_refused(tmp_path):
    for values, message in [
        ({"worker": "2/2"}, "worker = '2/2'"),
        ({"worker": "a"}, "worker = 'a'"),
        ({"num_shards": -1}, "num_shards = -1"),
        ({"text_key": "body"}, "text_key = 'body' is for files of your own"),
        (
            {"vocabulary": "v.model", "vocab_size": 512},
            "vocab_size = 512 is for training a vocabulary",
        ),
        ({"tasks": ("python", "text=t.tsv:accuracy")}, "cannot be called 'text'"),
        ({"tasks": ("a=t.tsv:accuracy", "a=u.tsv:f1")}, "tasks: 'a' is given twice"),
        ({"tasks": ("glue", "glue")}, "tasks: 'glue' is given twice"),
        (
            {"source": "mine", "tasks": ("mine=t.tsv:accuracy",)},
            "'mine' is the name of the pretraining text",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            PrepareConfig(**values)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        prepare(PrepareConfig(out=str(tmp_path / "file" / "corpus")))


def _part(key="key"):
    return part_files.Part(
        "some/part",
        key,
        lambda root: {"files": {"a.npy": shards.write_array(root / "a.npy", np.ones(3))}},
    )


def test_a_part_is_done_only_whole_and_from_the_same_key(tmp_path):
    assert _part().done(tmp_path) is None
    facts = _part().finish(tmp_path)
    assert (
        _part().done(tmp_path)
        == facts
        == json.loads((tmp_path / "parts/some.part.json").read_text())
    )
    assert _part("other").done(tmp_path) is None
    (tmp_path / "parts/some.part.json").write_text("{")
    assert _part().done(tmp_path) is None
    _part().finish(tmp_path)
    (tmp_path / "a.npy").write_bytes(b"")
    assert _part().done(tmp_path) is None


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    shards.write_bytes(tmp_path / "file", b"old")
    with pytest.raises(KeyError), records.replacing(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyError
    assert (tmp_path / "file").read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_missing_vocabulary_is_one_line_before_the_work(tmp_path):
    config = PrepareConfig(out=str(tmp_path / "corpus"), vocabulary=str(tmp_path / "none.model"))
    with pytest.raises(InputError, match=r"vocabulary: .*none.model cannot be read \(No such file"):
        prepare(config)


def test_files_of_killed_writers_are_removed_but_not_those_being_written(tmp_path):
    (tmp_path / "parts").mkdir()
    for name in ("corpus.json.tmp-1a2b", "parts/x.json.tmp-3c"):
        (tmp_path / name).write_text("half")
    with records.replacing(tmp_path / "alive.npy") as file:
        file.write(b"all")
        shards.remove_leftovers(tmp_path, 60)
        assert len(list(tmp_path.rglob("*.tmp-*"))) == 3, "they may be another machine's"
        shards.remove_leftovers(tmp_path, 0)
    assert {path.name for path in tmp_path.rglob("*")} == {"parts", "alive.npy"}


_FULL = """
import resource, sys
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from pathlib import Path
from train import command_line
from train.data import shards
sys.exit(command_line.run(lambda: shards.write_array(Path(sys.argv[1]), np.zeros(100_000)) and 0))
"""


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    out = tmp_path / "train-00000.npy"
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(out)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (1, f"error: {str(out)!r}: File too large\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_ends_prepare_in_one_line(library, tmp_path):
    given = f"--out {tmp_path}/corpus --python-root {library} --vocab-size 1024"
    command = ["bash", "-c", f"ulimit -f 40; exec {sys.executable} -m train prepare {given}"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=400)
    *said, last = done.stderr.splitlines()
    assert done.returncode == 1 and last.startswith("error: ") and last.endswith(": File too large")
    assert f"{tmp_path}/corpus/" in last and all(line.startswith("prepare: ") for line in said)
    assert not list(tmp_path.rglob("*.tmp-*"))

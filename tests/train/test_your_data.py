"""What a user does with data of their own.

The commands of docs/your_data.md exactly as printed there, and what is refused.
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.__main__ import main
from train.data.corpus import open_corpus

_ROOT = Path(__file__).resolve().parents[2]


def _commands():
    """The lines of the first code block."""
    page = (_ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")
    return re.search(r"```\n(.*?)```", page, re.DOTALL)[1].splitlines()


def _write_notes(folder):
    """A folder of texts with made-up words, and a table of sad and glad ones."""
    chance = random.Random(0)
    syllables = [
        "ba",
        "de",
        "fi",
        "go",
        "lu",
        "ma",
        "ne",
        "pi",
        "ro",
        "su",
        "ta",
        "ve",
        "wi",
        "xo",
        "zu",
    ]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(6000)]
    (folder / "notes").mkdir()
    for i in range(20):
        paragraphs = [" ".join(chance.choices(words, k=40)) + "." for _ in range(60)]
        (folder / "notes" / f"{i}.txt").write_text("\n\n".join(paragraphs))
    rows = (
        f"I am {w} today\t{'sad' if w[0] in 'bdfg' else 'glad'}\n"
        for w in chance.choices(words, k=400)
    )
    (folder / "mood.tsv").write_text("inputs\ttargets\n" + "".join(rows))


@pytest.mark.slow
def test_the_pages_three_commands_work_as_written(tmp_path):
    commands = _commands()
    assert len(commands) == 3 and all(
        command.startswith("python -m train ") for command in commands
    )
    _write_notes(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(_ROOT)}
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    corpus = open_corpus(tmp_path / "corpora/notes")
    run = records.read_run(tmp_path / "runs/notes/glu-nano-s0")
    assert run.status["state"] == "done" and 500 < corpus.vocab_size < 32_128
    assert run.config["data"]["fingerprint"] == run.env["fingerprint"] == corpus.fingerprint
    assert run.config["data"]["documents_left_out"] == 0
    found = {(row["task"], row["metric"]): row for row in run.evals}
    assert found["corpus", "nll"]["value"] < found["corpus", "unigram_nll"]["value"] + 0.5
    assert found["mood", "best_score"]["value"] >= 50 and found["mood", "score"]["n"] > 20


def test_a_damaged_shard_is_refused_by_name_before_anything_starts(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "corpus")
    shard = corpus / "pretrain/train-00000.npy"
    content = bytearray(shard.read_bytes())
    content[500] ^= 1
    shard.write_bytes(content)
    given = ["--corpus", str(corpus), "--runs", str(tmp_path / "runs")]
    for verb in (["pretrain"], ["study", "--config", tiny_study.__file__]):
        assert main([*verb, *given]) == 2
        said = capsys.readouterr().err
        assert f"{shard} is damaged: its sha256 differs" in said and said.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/*/config.json"))

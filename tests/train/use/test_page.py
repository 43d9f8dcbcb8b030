"""The page about weights: its commands as typed, its Python, and its table of classes."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import eval.__main__ as evaluation
import train.__main__ as training
from arch_zoo import exchange
from train.records import read_json

PAGE = (Path(__file__).parents[3] / "docs" / "exchange.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python -m (train|eval) (.*)$", PAGE, re.MULTILINE)
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_page_run_as_typed(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "corpora" / "tiny", tmp_path / "corpora" / "python")
    shutil.copytree(place / "runs" / "study" / "gated", tmp_path / "runs" / "cpu" / "glu-centi-s0")
    (tmp_path / "notes.txt").write_text("a cat sat on the mat and looked at the other cats. " * 9)
    for room, typed in COMMANDS:
        arguments = shlex.split(typed.replace("finetune.steps=200", "finetune.steps=2"))
        main = {"train": training, "eval": evaluation}[room].main
        assert main(arguments) == 0, (typed, capsys.readouterr().err)
    assert (tmp_path / "reports" / "ext" / "report.html").exists()
    exec(CODE, {})  # noqa: S102  the project's own page
    assert read_json(tmp_path / "hf" / "glu" / "config.json")["feed_forward_proj"] == "gated-gelu"


def test_the_table_has_every_map():
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert listed == set(exchange.maps())
    for found in exchange.maps().values():
        assert f"`{found.theirs}`" in PAGE

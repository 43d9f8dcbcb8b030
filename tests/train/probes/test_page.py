"""The page about probes: its examples, its study, its commands and the probe that it adds."""

import re
import shlex
import sys
from pathlib import Path

import pytest

import eval.__main__ as evaluation
import train.__main__ as training
from train import probes
from train.probes.probe import PROBES
from train.records import read_jsonl

PAGE = (Path(__file__).parents[3] / "docs" / "probes.md").read_text(encoding="utf-8")
ADDED = "first_token"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = re.findall(r"^    \$ python -m train (.*)\n((?:    .*\n)+)", PAGE, re.MULTILINE)


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The probe of the page, in a folder of its own."""
    assert f"`train/probes/{ADDED}.py`" in PAGE
    folder = tmp_path / "probes"
    folder.mkdir()
    (folder / f"{ADDED}.py").write_text(BLOCKS[1])
    monkeypatch.setattr(probes, "__path__", [*probes.__path__, str(folder)])
    probes._load.cache_clear()
    yield tmp_path
    PROBES.pop(ADDED, None)
    sys.modules.pop(f"{probes.__name__}.{ADDED}", None)
    probes._get.cache_clear()


def test_every_example_is_what_the_command_prints(added, capsys):
    for typed, shown in EXAMPLES:
        assert training.main(shlex.split(typed)) == 0
        printed = capsys.readouterr().out
        assert printed.endswith("\n" + re.sub(r"^    ", "", shown, flags=re.MULTILINE)), typed
    assert {typed.split()[1] for typed, _ in EXAMPLES} == {*probes.names()}


def test_the_study_of_the_page_is_one():
    space = {}
    exec(BLOCKS[0], space)  # noqa: S102  the project's own page
    assert len(space["study"]().cells) == 2 * 3 * 3 * 3


@pytest.mark.slow
def test_the_probe_of_the_page_is_trained_by_its_command(added):
    (typed,) = re.findall(r"python -m train (pretrain .*\n.*)\n", PAGE)
    arguments = shlex.split(typed.replace("\\\n", " "))
    assert training.main([*arguments, "--runs", str(added / "runs")]) == 0
    (run,) = (added / "runs" / "single").iterdir()
    rows = {(row["split"], row["metric"]): row["value"] for row in read_jsonl(run / "evals.jsonl")}
    assert rows["test", "chance"] == 12.5 and rows["test", "accuracy"] > 50


def test_every_other_command_is_understood():
    typed = re.findall(r"^    python -m (train|eval) (.*?)(?: +#.*)?$", PAGE, re.MULTILINE)
    for room, text in typed:
        if not text.endswith("\\"):
            {"train": training, "eval": evaluation}[room].parse(shlex.split(text))
    assert len(typed) >= 4

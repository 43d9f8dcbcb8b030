"""The programs accept the commands and declarations of the pages that have no test of their own."""

import re
import shlex
from pathlib import Path

import pytest

import arch_zoo.__main__ as zoo
import eval.__main__ as evaluation
import train.__main__ as training
from arch_zoo import command_line
from train.study.directory import load

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "quickstart",
    "install",
    "faq",
    "scaling_laws",
    "adding_more",
    "reading_a_report",
    "statistics",
    "tuning",
)
COMMAND = re.compile(r"^ *(?:\.venv/bin/)?python -m (train|eval|arch_zoo) ([^#\n]*)", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """The commands in the pages' blocks of code, with continued lines joined."""
    texts = ((DOCS / f"{page}.md").read_text(encoding="utf-8") for page in PAGES)
    blocks = [
        block.replace("\\\n", " ")
        for text in texts
        for block in re.findall(
            r"^```\n(.*?)^```$|((?:^    .*\n)+)", text, re.DOTALL | re.MULTILINE
        )
        for block in block
    ]
    return [found for block in blocks for found in COMMAND.findall(block)]


@pytest.mark.parametrize(("room", "typed"), commands())
def test_every_command_is_understood(room, typed):
    arguments = shlex.split(typed)
    if room == "arch_zoo":
        command_line.parse(arguments, zoo.VERBS, "python -m arch_zoo", "")
    else:
        {"train": training, "eval": evaluation}[room].parse(arguments)


def test_the_pages_have_commands_of_every_program():
    assert {room for room, _ in commands()} == {"train", "eval", "arch_zoo"}


@pytest.mark.slow
def test_two_architectures_with_three_seeds_are_a_study(tmp_path):
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "study()" in block
    )
    (tmp_path / "two.py").write_text(code)
    cells = load(path=tmp_path / "two.py").cells
    assert {cell.architecture for cell in cells} == {"transformer", "glu"}
    assert len({cell.size for cell in cells}) == 4
    assert {cell.seed for cell in cells} == {0, 1, 2}

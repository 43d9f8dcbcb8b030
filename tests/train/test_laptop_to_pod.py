"""The programs accept every command and every line of Python in docs/laptop_to_pod.md."""

import re
import shlex
from pathlib import Path

import pytest

import eval.__main__ as evaluation
import train.__main__ as training
from train.study.directory import known, load

PAGE = (
    (Path(__file__).parents[2] / "docs" / "laptop_to_pod.md")
    .read_text(encoding="utf-8")
    .replace("\\\n", " ")
)
_COMMAND = r"^(?:srun .*)?python -m (train|eval) (.*?)(?: \| .*| +#.*)?$"
COMMANDS = re.findall(_COMMAND, PAGE, re.MULTILINE)


@pytest.mark.parametrize(("room", "typed"), COMMANDS)
def test_every_command_is_understood(room, typed):
    arguments = shlex.split(typed)
    {"train": training, "eval": evaluation}[room].parse(arguments)


def test_the_page_has_commands_for_every_launcher():
    assert {typed.split()[0] for room, typed in COMMANDS if room == "train"} >= {
        "plan",
        "study",
        "watch",
        "status",
        "slurm",
        "jobset",
    }


@pytest.mark.slow
def test_the_declaration_is_a_study(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    declared = load(path=tmp_path / "mine.py")
    plain = {(cell.architecture, cell.size) for cell in declared.cells if not cell.protocol}
    assert plain == {
        ("transformer", "mini"),
        ("lconv", "mini"),
        *((a, "tiny") for a in ("transformer", "mos", "lconv")),
    }
    assert {cell.protocol for cell in declared.cells} == {"", "depth", "width"}
    assert {cell.seed for cell in declared.cells} == {0, 1, 2}


def test_the_presets_it_lists_are_all_there_are():
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)))
    assert sorted(listed) == known()

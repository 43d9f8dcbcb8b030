"""Names from files cannot control terminals or spreadsheets, and are read back unchanged."""

import csv
import io
import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.__main__ import main
from eval.data import neutral
from eval.data.study import read_study
from eval.report import figures, write
from tests.eval import run_directories
from train.records import InputError, write_json

ESCAPE = "\x1b[31mred\x1b]0;title\x07\u202eevil"


@given(text=st.text(max_size=12))
def test_any_text_is_harmless_and_comes_back(text):
    cell = neutral.cell(text)
    assert cell.isprintable() or all(c in cell for c in text if not c.isprintable() and c in cell)
    assert "\x1b" not in cell and "\n" not in cell and "\u202e" not in cell
    assert cell[:1] not in tuple("=+-@") or neutral._NUMBER.fullmatch(cell)
    if text == neutral.printable(text):
        assert neutral.uncell(cell) == text


def test_numbers_stay_numbers():
    frame = pd.DataFrame(
        {"x": [-1.5, 2.0], "n": [-3, 4], "name": ["-2", "=1+1"], "mixed": [None, "@x"]}
    )
    assert neutral.csv(frame) == "x,n,name,mixed\n-1.5,-3,-2,\n2,4,'=1+1,'@x\n"
    with_lists = pd.DataFrame({"x": [[1], [2]]}, dtype=object)
    assert neutral.csv(with_lists) == "x\n[1]\n[2]\n"


def test_names_of_runs_that_are_formulas(tmp_path):
    names = ('=HYPERLINK("x")', "+a", "-b", "@c")
    study = run_directories.write_study(tmp_path, ("transformer",), study="s")
    for name, path in zip(names, sorted(study.iterdir()), strict=False):
        write_json(
            path / "config.json",
            json.loads((path / "config.json").read_text()) | {"architecture": name},
        )
    read = read_study(study).runs
    (tmp_path / "runs.csv").write_text(neutral.csv(read))
    shown = [
        row["architecture"]
        for row in csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text()))
    ]
    assert sorted(shown) == sorted(f"'{name}" for name in names[:3])
    assert list(write.load(tmp_path / "runs.csv").runs.architecture) == list(read.architecture)


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_escapes_reach_no_terminal(tmp_path, capsys, form):
    table = tmp_path / "t.csv"
    table.write_text(
        f'architecture,size,flops_forward,upstream_nll\n"{ESCAPE}",s,1e9,4\n"{ESCAPE}",m,1e10,3\n'
    )
    assert main(["slopes", str(table), "--format", form]) == 0
    said = capsys.readouterr()
    table.write_text(table.read_text().replace("1e9", "x\x1b[2J"))
    assert main(["slopes", str(table)]) == 2
    for text in (*said, *capsys.readouterr()):
        assert not set("\x1b\x07\u202e") & set(text)


def test_laws_neither(tmp_path, capsys):
    table = tmp_path / "t.csv"
    lines = [
        f'{n},{2 * n},"{ESCAPE}{i % 2}"' for i, n in enumerate((1e7, 2e7, 4e7, 8e7, 16e7, 32e7))
    ]
    table.write_text(
        "x,loss,group\n" + "\n".join(lines).replace("00000.0", "", 1).replace(",2", ",3")
    )
    main(
        [
            "fit",
            str(table),
            "--form",
            "power",
            "--group",
            "group",
            "--bootstrap",
            "0",
            "--trust-units",
        ]
    )
    assert not set("\x1b\x07\u202e") & set("".join(capsys.readouterr()))


def declare(study, *cells: tuple[str, str, str, int]) -> None:
    keys = ("architecture", "size", "protocol", "seed")
    write_json(
        study / "study.json",
        {"name": "s", "cells": [dict(zip(keys, cell, strict=True)) for cell in cells]},
    )


def test_runs_that_are_declared_and_absent_are_named(tmp_path, capsys):
    names = ("glu", "lconv")
    study = run_directories.write_study(tmp_path, names, study="s")
    sizes = run_directories.LADDER[:3]
    cells = [(name, size, "", 0) for name in ("transformer", *names) for size in sizes] + [
        ("glu", "tiny", "depth", 1)
    ]
    declare(study, *cells)
    read = read_study(study)
    assert read.warnings[0] == (
        f"4 of the 10 runs that study.json declares are not in {study}, and take no part: "
        "transformer-nano-s0, transformer-micro-s0, transformer-milli-s0 and 1 more. Of "
        "transformer there is no run at all."
    )
    assert main(["compare", str(study), "--format", "json"]) == 0
    assert (
        "There is no transformer among the runs compared; everything is compared with glu."
        in capsys.readouterr().err
    )
    declare(study, *[(name, size, "", 0) for name in names for size in sizes])
    assert not any("declares" in warning for warning in read_study(study).warnings)
    (study / "study.json").write_text('{"cells": [{"architecture": 3}]}')
    with pytest.raises(InputError, match=r"study\.json: a cell has no architecture"):
        read_study(study)


class Half:
    """A figure whose writer is killed halfway."""

    def savefig(self, file, **options) -> None:
        """Writes half of the file."""
        file.write(b"%PDF-1.4 and no more")
        raise KeyboardInterrupt


def test_a_killed_report_leaves_nothing_half_written(tmp_path):
    stopped: dict[str, Any] = {"fig1": Half()}
    with pytest.raises(KeyboardInterrupt):
        figures.save(stopped, tmp_path)
    assert list(tmp_path.iterdir()) == []
    left = tmp_path / "fig1.pdf.tmp-0123456789ab"  # what a killed process leaves behind
    left.write_bytes(b"%PDF")
    mine = tmp_path / "notes.tmp-mine"
    mine.write_text("kept")
    write._clear(tmp_path)
    assert not left.exists() and mine.exists()

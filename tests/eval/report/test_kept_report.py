"""The report of one CPU study, kept as a golden.

It shows every number that a change of the code moves. `examples/cpu.tar.gz` holds the records of
the 48 runs of the CPU study, `kept_report.tar.gz` the text files of their report. If a change
is meant to move a number, write them again:

    python -m tests.eval.report.test_kept_report
"""

import csv
import io
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.analyses import everything
from eval.data.study import read_study
from eval.report import write
from tests import tolerances

RECORDS = Path(__file__).parents[3] / "examples" / "cpu.tar.gz"
KEPT = Path(__file__).with_name("kept_report.tar.gz")
_ENDS = (("lower", "upper"), ("upper", "lower"), ("low", "high"), ("high", "low"))
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?|-?\d+e[+-]?\d+")


def texts() -> dict[str, str]:
    """The text files of the report, except the page, whose charts hold the same tables."""
    analysis = everything.analyse(read_study(RECORDS))
    return {name: text for name, text in write.texts(analysis) if not name.endswith(".html")}


def kept() -> dict[str, str]:
    with tarfile.open(KEPT) as archive:
        files = {member.name.removeprefix("./"): archive.extractfile(member) for member in archive}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def assert_same(name: str, text: str, before: str) -> None:
    """Asserts equal bytes or, if the BLAS library differs, equal words and close numbers."""
    if text == before:
        return
    lines = list(zip(text.split("\n"), before.split("\n"), strict=True))
    header = next(csv.reader([lines[0][1]]), []) if name.endswith(".csv") else []
    for row, (line, old) in enumerate(lines, start=1):
        where = f"{name}, row {row}"
        assert _NUMBER.sub("#", line) == _NUMBER.sub("#", old), where
        for cell, cell_before, other_end in cells(header, line, old):
            numbers = [float(number) for number in _NUMBER.findall(cell)]
            wanted = [float(number) for number in _NUMBER.findall(cell_before)]
            near = max(1e-9, tolerances.KEPT_REPORT * other_end)
            assert numbers == pytest.approx(wanted, rel=tolerances.KEPT_REPORT, abs=near), where


def cells(header: list[str], line: str, old: str) -> Iterator[tuple[str, str, float]]:
    """The cells of a row, now and before; of an interval's end, also the size of its other end.

    An end close to zero is as exact as the other one, and no more.
    """
    now, before = (next(csv.reader([row]), []) for row in (line, old))
    if not header or not len(header) == len(now) == len(before):
        yield line, old, 0.0
        return
    values = dict(zip(header, before, strict=True))
    for name, cell, cell_before in zip(header, now, before, strict=True):
        swapped = next((name.replace(a, b) for a, b in _ENDS if name.endswith(a)), "")
        other = values.get(swapped, "")
        yield cell, cell_before, abs(float(other)) if _NUMBER.fullmatch(other) else 0.0


@pytest.mark.slow
def test_the_report_of_the_kept_records_is_the_kept_report():
    found, before = texts(), kept()
    assert found.keys() == before.keys()
    for name, text in found.items():
        assert_same(name, text, before[name])


def test_a_number_or_word_that_moved_is_seen():
    assert_same("a", "x,1.25\n", "x,1.25\n")
    assert_same("a", f"x,{1.25 * (1 + 1e-12)!r}\n", "x,1.25\n")
    ends = "name,lower,upper\nx,{},0.0277\n"
    assert_same("a.csv", ends.format(0.00073957380), ends.format(0.00073957220))
    with pytest.raises(AssertionError):
        assert_same("a.csv", ends.format(0.0007397), ends.format(0.0007395))
    for other in ("x,1.26\n", "y,1.25\n", "x,1.25\nz"):
        with pytest.raises((AssertionError, ValueError)):
            assert_same("a", other, "x,1.25\n")


def _write_again() -> None:
    found = texts()
    with tarfile.open(KEPT, "w:gz") as archive:
        for name, text in sorted(found.items()):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


if __name__ == "__main__":
    sys.exit(_write_again())

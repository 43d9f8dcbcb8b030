"""The report of one CPU study, kept as a golden.

It shows every number that a change of the code moves. `examples/cpu.tar.gz` holds the records of
the 48 runs of the CPU study, `kept_report.tar.gz` the text files of their report. If a change
is meant to move a number, write them again:

    python -m tests.eval.report.test_kept_report
"""

import io
import re
import sys
import tarfile
from pathlib import Path

import pytest

from eval.analyses import everything
from eval.data.study import read_study
from eval.report import write
from tests import tolerances

RECORDS = Path(__file__).parents[3] / "examples" / "cpu.tar.gz"
KEPT = Path(__file__).with_name("kept_report.tar.gz")
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
    for row, (line, old) in enumerate(lines, start=1):
        where = f"{name}, row {row}"
        assert _NUMBER.sub("#", line) == _NUMBER.sub("#", old), where
        numbers = [float(number) for number in _NUMBER.findall(line)]
        wanted = [float(number) for number in _NUMBER.findall(old)]
        assert numbers == pytest.approx(wanted, rel=tolerances.KEPT_REPORT, abs=1e-9), where


@pytest.mark.slow
def test_the_report_of_the_kept_records_is_the_kept_report():
    found, before = texts(), kept()
    assert found.keys() == before.keys()
    for name, text in found.items():
        assert_same(name, text, before[name])


def test_a_number_or_word_that_moved_is_seen():
    assert_same("a", "x,1.25\n", "x,1.25\n")
    assert_same("a", f"x,{1.25 * (1 + 1e-12)!r}\n", "x,1.25\n")
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

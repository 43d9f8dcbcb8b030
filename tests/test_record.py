"""BENCHMARKS.md contains exactly what was measured."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks import record, summary


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "PAGE", tmp_path / "page.md")
    return tmp_path


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["record", *arguments])
    return record.main()


def test_the_committed_page_is_what_the_kept_results_say(tmp_path, monkeypatch):
    committed = record.PAGE.read_text()
    monkeypatch.setattr(record, "PAGE", tmp_path / "page.md")
    record.write_page()
    assert record.PAGE.read_text() == committed


def test_a_command_is_kept_with_its_json_and_shown(place, monkeypatch):
    measured = {"a": {"b|c": 2.5}, "rows": [{"x": 1}, {"y": None}]}
    script = f"print('[1] working'); print({json.dumps(measured, indent=1)!r})"
    assert run(monkeypatch, "some_thing", "--", sys.executable, "-c", script) == 0
    kept = json.loads((place / "results" / "some_thing.json").read_text())
    assert kept["result"] == measured
    page = record.PAGE.read_text()
    assert "## Some thing" in page
    assert "| a.b\\|c | 2.5 |" in page
    assert "| x | y |\n| --: | --: |\n| 1 |  |\n|  |  |" in page


def test_a_failed_command_says_so(place, monkeypatch):
    assert (
        run(
            monkeypatch,
            "failed",
            "--",
            sys.executable,
            "-c",
            "print('no result'); raise SystemExit(3)",
        )
        == 3
    )
    assert "It ended with exit code 3." in record.PAGE.read_text()


@pytest.mark.parametrize("arguments", [["name"], ["name", "--"], ["--", "true"]])
def test_half_a_request_is_refused(place, monkeypatch, arguments):
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, *arguments)
    assert refused.value.code == 2
    assert not record.PAGE.exists()


def test_stored_results_do_not_count_as_changed_code(tmp_path, monkeypatch):
    """A second benchmark, recorded right after a first one, still counts as the commit's code.

    A changed source file does not.
    """
    results, page, source = (
        tmp_path / "benchmarks" / "results",
        tmp_path / "BENCHMARKS.md",
        tmp_path / "step.py",
    )
    results.mkdir(parents=True)
    files = results / "one.json", page, source
    for path in files:
        path.write_text("first\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    for name, value in {"ROOT": tmp_path, "RESULTS": results, "PAGE": page}.items():
        monkeypatch.setattr(record, name, value)
    for path, modified in zip(files, (False, False, True), strict=True):
        path.write_text("second\n")
        assert record.is_modified() == modified


def test_every_kept_result_has_a_sentence():
    for path in record.RESULTS.glob("*.json"):
        kept = json.loads(path.read_text())
        (program,) = re.findall(r"benchmarks\.(\w+)", kept["command"])
        assert summary.question(program).endswith("."), program
        assert summary.finding(program, kept["result"]), path


def test_a_sentence_has_the_numbers_of_its_result():
    rows = [{"over_reference": 0.5}, {"over_reference": None}, {"over_reference": 1.25}]
    said = summary.finding("language_models", {"rows": rows})
    assert said == "0.5 to 1.2 of Hugging Face's time for a step"
    result = {"tried": 10, "equivalent": 2, "killed": 5, "timeout": 1}
    assert summary.finding("mutation", result) == "6 of 8 mistakes are noticed"
    assert summary.finding("language_models", {}) == summary.finding("other", {"a": 1}) == ""

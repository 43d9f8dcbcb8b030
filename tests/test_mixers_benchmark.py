"""`benchmarks.mixers`: its rows, and its exit code where a goal is missed."""

import json
import sys

import pytest

from benchmarks import mixers


@pytest.mark.slow
@pytest.mark.parametrize(("goal", "code"), [(1e-3, 1), (1e3, 0)])
def test_a_missed_goal_is_an_error(monkeypatch, capsys, goal, code):
    monkeypatch.setattr(mixers, "GOALS", {"retnet": goal})
    options = ["--size", "nano-NL1", "--lengths", "8", "--tokens", "16", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", ["mixers", "--architectures", "retnet", *options])
    assert mixers.main() == code
    base, row = json.loads(capsys.readouterr().out)["rows"]
    assert (base["name"], base["over_llama"], base["met"]) == ("llama", 1.0, None)
    assert row["name"] == "retnet" and row["met"] is not bool(code)
    assert row["milliseconds"] > 0 and row["flops"] > 0

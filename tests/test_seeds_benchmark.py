"""The option `--steps-only` of `benchmarks.seeds`.

It needs no corpus, and the ratio that it prints is that of the times that it prints.
"""

import json
import sys

import pytest

from benchmarks import seeds


@pytest.mark.slow
def test_steps_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [
        "--steps-only",
        "--seeds",
        "2",
        "--rounds",
        "1",
        "--seconds",
        "0.01",
        "--architectures",
        "performer",
    ]
    monkeypatch.setattr(sys, "argv", ["seeds", *options])
    seeds.main()
    found = json.loads(capsys.readouterr().out)
    (row,) = found["rows"]
    assert (row["architecture"], row["size"], row["dtype"]) == ("performer", "nano", "float32")
    assert row["ratio"] == pytest.approx(row["step_together"] / (2 * row["step_alone"]))

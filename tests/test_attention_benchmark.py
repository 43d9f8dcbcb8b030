"""`benchmarks.attention` on a machine without a GPU.

Both variants use XLA's attention there. Their gradients are close to float32's, and steps can be
repeated exactly.
"""

import json
import sys

import pytest

from benchmarks import attention


@pytest.mark.slow
def test_a_cpu_agrees_with_itself(monkeypatch, capsys):
    lengths = ((24, 12, "encoder_decoder"), (0, 24, "decoder_only"))
    monkeypatch.setattr(attention, "LENGTHS", lengths)
    monkeypatch.setattr(sys, "argv", ["attention", "--size", "nano-NL1", "--batch-size", "3"])
    assert attention.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["rows"] for row in found["rows"]] == (["padded"] * 2 + ["packed"] * 2) * 2
    for row, other in zip(found["rows"][::2], found["rows"][1::2], strict=True):
        assert row == other and row["kernel"] == "XLA"
        assert 0 < row["distance"] < 0.1
    assert [row["differ"] for row in found["repeated"]] == [0, 0]

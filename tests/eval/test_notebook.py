"""The notebook in docs runs from the first to the last cell on a study."""

import json
from pathlib import Path

import pandas as pd
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "analysis.ipynb"


@pytest.mark.slow
def test_every_code_cell_runs(ladders, monkeypatch, capsys):
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    monkeypatch.setenv("STUDY", str(ladders))
    names: dict = {}
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code") and isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert (
                cell["outputs"] == [] and cell["execution_count"] is None
            )  # the notebook stores no output
            code = "".join(line for line in cell["source"] if not line.startswith("%"))  # Jupyter's
            exec(compile(code, cell["id"], "exec"), names)
    assert isinstance(names["alphas"], pd.DataFrame) and "<!DOCTYPE html>" in names["page"][:200]
    assert "32 finished runs: 4 architectures at 4 sizes" in capsys.readouterr().out

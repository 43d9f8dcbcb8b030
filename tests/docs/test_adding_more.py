"""The examples of docs/adding_more.md work as they stand there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eval.laws.fitting.fit import fit
from eval.laws.fitting.objective import Objective
from eval.laws.law_table import points
from train.tasks import metrics

PAGE = (Path(__file__).parents[2] / "docs" / "adding_more.md").read_text(encoding="utf-8")
METRIC, MEASURE, LAW = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def made(source: str, **known) -> dict:
    """The names that a block defines."""
    exec(compile(source, "docs/adding_more.md", "exec"), known)
    return known


def test_the_metric_is_a_score_in_percent():
    prefix = made(METRIC, **vars(metrics))["prefix"]
    references = [{"target": "good"}, {"target": "bad"}]
    found = prefix(["good indeed", "good"], references, ["good", "bad"])["prefix"]
    assert (found.value, found.n) == (50.0, 2)


def test_the_measure_gives_a_row_of_evals_jsonl():
    norm = made(MEASURE, jax=jax, np=np)["Norm"](None, None, 0, None, None)
    (row,) = norm({"a": jnp.array([1.0, -3.0]), "b": jnp.zeros(2)}, final=True)
    assert row["value"] == 1.0
    assert row.keys() == {"task", "split", "metric", "value", "n", "stderr"}


def test_the_law_is_found_on_exact_points():
    law = made(LAW)["Logarithmic"]()
    x = {"x": np.geomspace(1e6, 1e9, 12)}
    truth = {"a": 9.0, "b": 0.25}
    runs = points(law.predict(truth, **x), **x)
    assert fit(law, runs, Objective("l2", space=law.space)).params == pytest.approx(truth, rel=1e-6)

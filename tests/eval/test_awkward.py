"""Every analysis on every awkward table.

The result is a one-line error or an honest table with notes, never a warning or a traceback.
"""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from eval.analyses.pareto import Frontier
from eval.simulation.simulate import Line, study
from tests.eval.answers import ANSWERS
from train.records import InputError

FUNCTIONS = {
    **ANSWERS,
    "all crossovers": lambda table: ANSWERS["crossovers"](table, reference=None),
    "attainment by architecture": lambda table: Frontier(table).attainment(by_architecture=True),
}
LINES = {
    "transformer": Line(),
    "<b>&_{odd}</b>": Line(upstream=-3.6),
    "mos": Line(upstream_slope=0.4),
}


def failing_half(table: pd.DataFrame) -> pd.DataFrame:
    """One architecture never finished, another one lacks its largest size."""
    lost = (table["architecture"] == "mos") | (
        (table["architecture"] != "transformer") & (table["size"] == "size3")
    )
    return table.assign(**{c: table[c].where(~lost) for c in ("upstream_nll", "downstream_mean")})


def ragged(table: pd.DataFrame) -> pd.DataFrame:
    """Sizes and seeds differ between architectures."""
    keep = (table["architecture"] == "transformer") | (
        (table["seed"] == 0) & (table["size"] != "size1")
    )
    return table[keep]


TABLES = {
    "one size": study(LINES, sizes=1),
    "one seed": study(LINES, seeds=1),
    "two sizes": study(LINES, sizes=2),
    "three sizes, one seed": study(LINES, sizes=3, seeds=1),
    "one run": study({"transformer": Line()}, sizes=1, seeds=1),
    "one architecture": study({"transformer": Line()}),
    "equal flops": study(LINES).assign(flops_forward=1e9, steps_per_second=1.0),
    "equal scores": study(LINES).assign(downstream_mean=50.0, upstream_nll=3.0),
    "no downstream values": study(LINES).assign(downstream_mean=np.nan),
    "no values at all": study(LINES).assign(downstream_mean=np.nan, upstream_nll=np.nan),
    "no flops": study(LINES).assign(flops_forward=np.nan),
    "half failed": failing_half(study(LINES, sizes=4)),
    "ragged": ragged(study(LINES, sizes=4)),
    "seeds unknown": study(LINES).assign(seed=np.nan, run_id=None),
    "negative scores": study(LINES).assign(downstream_mean=lambda t: t["downstream_mean"] - 60),
    "no overlap": study(
        {"transformer": Line(), "far": Line(upstream=-6.9, downstream=0.0, flops=1e6)}, sizes=4
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_no_analysis_trips(name):
    for function, answer in FUNCTIONS.items():
        try:
            rows = answer(TABLES[name])
        except InputError as refusal:
            assert "\n" not in str(refusal) and len(str(refusal)) > 10
            continue
        assert isinstance(rows, pd.DataFrame)
        numbers = rows.select_dtypes("number").drop(columns=["claim"], errors="ignore")
        open_ends = [
            "ci_low",
            "ci_high",
            "bootstrap_low",
            "bootstrap_high",
            "crossing",
        ]  # or beyond any float
        finite = numbers.drop(columns=open_ends, errors="ignore").to_numpy(dtype=float)
        assert not np.isinf(finite).any(), function


def test_intervals_only_where_they_are_honest():
    for name in ("one size", "two sizes", "three sizes, one seed", "one run"):
        for function in ("slopes", "contrasts", "levels", "crossovers"):
            rows = ANSWERS[function](TABLES[name])
            if len(rows):
                bounds = [column for column in ("ci_low", "bootstrap_low") if column in rows]
                assert rows[bounds].isna().all(axis=None) and (rows["note"] != "").all(), (
                    name,
                    function,
                )


@pytest.mark.slow
def test_import_is_light_and_reaches_every_module():
    code = (
        "import sys, eval; assert not {'pandas', 'scipy', 'jax'} & set(sys.modules);"
        "assert callable(eval.Comparison) and callable(eval.read_study) and callable(eval.analyse);"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

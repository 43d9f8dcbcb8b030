"""The capacity of models on random tokens, from simulated records."""

import numpy as np
import pandas as pd

from eval.analyses.capacity import METRIC, MOST_GAIN, TASK, Capacity
from eval.data.study import EVAL_COLUMNS, Study

PARAMS = {"small": 4000, "large": 9000}
LOADS = (0.4, 0.7, 1.0, 1.5, 2.0)  # bits of the text over what the model could hold


def _study(capacity: dict[str, float], gain: dict[str, float], noise: float = 0.0) -> Study:
    """Runs that memorise all of the text up to their capacity, at their best rate of three."""
    rng, runs, evals = np.random.default_rng(0), [], []
    for name, per_param in capacity.items():
        for size, params in PARAMS.items():
            trials = [(load, 1, 1.0) for load in LOADS]
            trials += [(1.0, times, share) for times in (1, 2) for share in (0.7, 0.9)]
            trials += [(1.0, 2, 1.0)]
            for load, times, share in trials:
                run_id, text = f"{name}-{size}-{len(runs)}", load * 3.6 * params
                held = min(text, per_param * params * (1 + rng.normal(0, noise)))
                held *= share * (1 + gain[name] * (times - 1))
                runs.append((run_id, name, size, text / 6, 4000 * times, params))
                evals.append((run_id, "pretrain", TASK, "train", METRIC, 1, held, 9, np.nan))
    keys = ["run_id", "architecture", "size", "unique_tokens", "steps", "params_total"]
    empty = pd.DataFrame()
    frame = pd.DataFrame(evals, columns=list(EVAL_COLUMNS))
    return Study("capacity", pd.DataFrame(runs, columns=keys), frame, empty, empty, empty)


def test_capacities_are_found_with_a_mark_where_they_are_lower_bounds():
    truth = {"glu": 2.5, "mos": 1.5, "llama": 2.0}
    gain = {"glu": 0.01, "mos": 0.05, "llama": 0.0}
    table = Capacity(_study(truth, gain, noise=0.01)).table().set_index("architecture")
    assert list(table.index) == ["glu", "llama", "mos"]
    for name, value in truth.items():
        row = table.loc[name]
        assert row.ci_low < value < row.ci_high < 1.05 * value
    exact = Capacity(_study(truth, gain)).table().set_index("architecture")
    assert exact.converged.to_dict() == {"glu": True, "llama": True, "mos": False}
    np.testing.assert_allclose(exact.gain.loc[list(gain)], list(gain.values()), atol=1e-12)
    assert gain["mos"] > MOST_GAIN > gain["glu"]


def test_text_that_is_not_enough_is_no_plateau():
    """Of 2.5 bits a parameter, texts of 1.4 and 2.5 bits a parameter fill only part."""
    points = Capacity(_study({"glu": 2.5}, {"glu": 0.0})).points()
    usual = points[(points.steps == 4000) & (points["size"] == "small")]
    np.testing.assert_allclose(usual.bits_per_param, [1.44, 2.5, 2.5, 2.5, 2.5])
    assert usual.runs.tolist() == [1, 1, 3, 1, 1]
    # The largest value is taken first, so the plateau has the four equal ones of both sizes.
    assert Capacity(_study({"glu": 2.5}, {"glu": 0.0})).table().points.tolist() == [8]


def test_text_that_is_still_memorised_whole_gives_a_lower_bound():
    table = Capacity(_study({"glu": 9.9}, {"glu": 0.0})).table()
    assert table.points.tolist() == [2] and table.converged.tolist() == [False]


def test_records_without_random_tokens_have_no_capacity():
    study = _study({"glu": 2.5}, {"glu": 0.0})
    none = Study(study.name, study.runs, study.evals[:0], *[pd.DataFrame()] * 3)
    assert Capacity(none).points().empty and Capacity(none).table().empty

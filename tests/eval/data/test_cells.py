"""Tables that are refused before any analysis, with one line that names the problem."""

import numpy as np
import pandas as pd
import pytest

from eval.analyses.comparison import Comparison
from eval.analyses.pareto import Frontier
from eval.analyses.question import Question
from eval.analyses.slopes import Slopes
from eval.data.cells import RunTable, main_protocol
from eval.data.quantity import SCORE
from eval.simulation.simulate import Line, study
from train.records import InputError


@pytest.fixture
def table() -> pd.DataFrame:
    return study({"transformer": Line(), "b": Line()}, sizes=4, seeds=2)


def set_cell(column, value):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[2, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            set_cell("flops_forward", 0.0),
            "row 3: flops_forward is not positive (run_id transformer-size1-s0",
        ),
        (set_cell("flops_forward", -1.0), "not positive"),
        (set_cell("flops_forward", np.inf), "row 3: flops_forward is infinite"),
        (set_cell("upstream_nll", -2.0), "upstream_nll is negative"),
        (set_cell("downstream_mean", 180.0), "outside -100 to 100"),
        (set_cell("run_id", "transformer-size0-s0"), "row 3: this run id is there twice"),
        (set_cell("size", "size0"), "the same architecture, size, protocol and seed"),
        (set_cell("architecture", None), "architecture is empty"),
        (
            set_cell("corpus", "other"),
            "corpus: losses of different corpus values cannot be compared",
        ),
        (
            lambda t: t.drop(columns="upstream_nll"),
            "column 'upstream_nll' is missing; columns: run_id",
        ),
        (lambda t: t.assign(upstream_nll="low"), "numbers are needed"),
        (lambda t: t.iloc[:0], "the table has no runs"),
    ],
)
def test_bad_tables_are_refused_in_one_line(table, change, words):
    with pytest.raises(InputError) as refusal:
        Slopes(change(table)).table()
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda t: Slopes(t).table(links=("cubic",)),
            "link = 'cubic' is not one of semilog, loglog",
        ),
        (lambda t: Slopes(t).table(pairs=("XU",)), "quantity 'X' is unknown"),
        (
            lambda t: Slopes(t, Question(errors="robust")).table(),
            "errors = 'robust' is not one of size, seed",
        ),
        (
            lambda t: Comparison(t, Question(reference="bert")).contrasts(),
            "reference 'bert' is not among the architectures: b, transformer",
        ),
        (lambda t: Question(variance="both"), "variance = 'both' is not one of"),
        (lambda t: Frontier(t, Question(x=SCORE)), "cost is one of F, P, S"),
        (
            lambda t: Slopes(t, Question(protocol="depth")).table(),
            "protocol 'depth' is not in the table",
        ),
        (lambda t: Question(log_base=1.0), "log_base is 1.0"),
    ],
)
def test_bad_choices_are_refused_in_one_line(table, call, words):
    with pytest.raises(InputError) as refusal:
        call(table)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_protocols_are_never_mixed(table):
    depth = table.assign(protocol="depth", run_id=table.run_id + "-d")
    both = pd.concat([table, depth], ignore_index=True)
    assert len(main_protocol(both)) == len(table)
    assert len(main_protocol(both, "depth")) == len(depth)
    width = depth.assign(protocol="width")
    assert set(main_protocol(pd.concat([width, depth])).protocol) == {
        "depth"
    }  # none is plain: the first of those with equally many runs
    assert set(main_protocol(pd.concat([width, depth[1:]])).protocol) == {
        "width"
    }  # which has one run more


def test_mixed_tokenizers_are_refused(table):
    with pytest.raises(InputError, match="tokenizer"):
        RunTable(table.assign(tokenizer=["a"] * 8 + ["b"] * 8))


def test_any_index_and_missing_optional_columns_do(table):
    plain = Slopes(table).table()
    odd = table.set_index(pd.Index(list("zyxwvutsrqponmlk"))).drop(
        columns=["run_id", "study", "protocol", "corpus"]
    )
    pd.testing.assert_frame_equal(Slopes(odd).table(), plain)


def test_row_order_does_not_matter(table):
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(Slopes(shuffled).table(), Slopes(table).table())

"""Tables of other projects: with a mapping of columns they give the same study."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from eval.data import run_table
from eval.data.run_table import RunColumns
from train.records import InputError, append_jsonl

MEANT = RunColumns(
    architecture="router_type",
    size="label",
    flops="flops_per_step",
    params="total",
    upstream="loss_c4",
    downstream=("acc", "f1"),
    fractions=True,
    run_id="id",
    step="at",
)


@pytest.fixture
def raw() -> pd.DataFrame:
    """Two architectures at three sizes with two steps each; the second step counts."""
    rows = [
        {
            "id": f"{a}{s}",
            "at": at,
            "router_type": a,
            "label": f"{s}M",
            "flops_per_step": 1e9 * 4**s,
            "total": 1e6 * 3**s,
            "loss_c4": 4.0 - 0.3 * s + (at == 1),
            "acc": 0.5 + 0.05 * s,
            "f1": 0.4,
            "kind": 0.5,
        }
        for a in ("Dense", "Hash")
        for s in (1, 2, 3)
        for at in (1, 2)
    ]
    return pd.DataFrame(rows)


def write(raw: pd.DataFrame, path):
    if path.suffix == ".csv":
        raw.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        raw.to_parquet(path)
    else:
        append_jsonl(path, [{str(k): v for k, v in row.items()} for row in raw.to_dict("records")])
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_every_format_reads_alike(raw, tmp_path, suffix):
    study = run_table.read_table(write(raw, tmp_path / f"runs.{suffix}"), MEANT)
    runs = study.runs.set_index("run_id")
    assert len(runs) == 6 and study.name == "runs"
    row: Any = runs.loc["Dense2"]
    assert row.architecture == "Dense" and row["size"] == "2M" and row.seed == 0
    assert row.flops_forward == 16e9 and row.params_total == 9e6
    assert row.upstream_nll == pytest.approx(3.4) and row.upstream_neg_log_ppl == pytest.approx(
        -3.4
    )
    assert row.downstream_acc == pytest.approx(60) and row.downstream_mean == pytest.approx(50)


def test_rows_can_be_chosen(raw, tmp_path):
    raw.loc[raw.label == "3M", "kind"] = 1.0
    path = write(raw, tmp_path / "runs.csv")
    meant: dict[str, Any] = {
        "architecture": "router_type",
        "run_id": "id",
        "step": "at",
        "upstream": "loss_c4",
        "params": "total",
    }
    assert (
        len(
            run_table.read_table(
                path, RunColumns(**meant, where=("kind=0.5", "router_type=Hash"))
            ).runs
        )
        == 2
    )
    assert len(run_table.read_table(path, RunColumns(**meant, where=("label=1M,3M",))).runs) == 4
    for where, said in (
        ("kind=x", "holds numbers"),
        ("kind=7", "no row has"),
        ("kind", "COLUMN=VALUE"),
        ("z=1", "'z'"),
    ):
        with pytest.raises(InputError, match=said):
            run_table.read_table(path, RunColumns(**meant, where=(where,)))


@pytest.mark.parametrize(
    ("kind", "value"), [("nll", 2.0), ("neg_log_ppl", -2.0), ("ppl", np.exp(2.0))]
)
def test_the_upstream_may_be_any_of_three(tmp_path, kind, value):
    table = pd.DataFrame(
        {
            "architecture": ["a"],
            "params_total": [1e6],
            "flops_forward": [1e9],
            "upstream_nll": [value],
        }
    )
    study = run_table.read_table(write(table, tmp_path / "t.csv"), RunColumns(upstream_is=kind))
    assert study.runs.upstream_nll[0] == pytest.approx(2.0)
    assert study.runs["size"][0] == "1e+06" and study.runs.run_id[0] == "a-1e+06-s0"


def test_runs_of_a_cell_without_seeds_are_numbered(tmp_path):
    table = pd.DataFrame({"architecture": ["a"] * 3, "size": ["s"] * 3, "params_total": [1.0] * 3})
    assert list(run_table.read_table(write(table, tmp_path / "t.csv")).runs.seed) == [0, 1, 2]


def test_checkpoints_are_no_seeds(tmp_path):
    """Without names of runs, rows of one architecture, size and seed are steps of one run."""
    rows = [
        {
            "architecture": a,
            "size": size,
            "seed": seed,
            "step": step,
            "flops_forward": 1e9 * (1 + (size == "m")),
            "upstream_nll": 4.0 - 0.1 * seed - step / 100,
        }
        for a in ("glu", "transformer")
        for size in ("s", "m")
        for seed in (0, 1)
        for step in (30, 10, 20)
    ]
    table = pd.DataFrame(rows)
    runs = run_table.read_table(write(table, tmp_path / "t.csv")).runs
    assert len(runs) == 8 and set(runs.upstream_nll.round(9)) == {3.7, 3.6}
    one_seed = table[table.seed == 0].drop(columns=["seed", "size"])  # FLOPs tell the sizes apart
    runs = run_table.read_table(write(one_seed, tmp_path / "t.csv")).runs
    assert len(runs) == 4 and set(runs.seed) == {0} and (runs.upstream_nll == 3.7).all()
    with pytest.raises(
        InputError,
        match="row 5: architecture, size are there twice at step 30: runs or checkpoints",
    ):
        run_table.read_table(write(table.drop(columns="seed"), tmp_path / "t.csv"))
    last = table[table.step == 30].drop(columns="seed")  # one step only: these are seeds
    assert set(run_table.read_table(write(last, tmp_path / "t.csv")).runs.seed) == {0, 1}


@pytest.mark.parametrize(
    ("change", "columns", "said"),
    [
        ({"flops_per_step": "many"}, MEANT, "row 4: flops_per_step = 'many' is not a number"),
        ({"router_type": None}, MEANT, "row 4: router_type is empty"),
        ({}, RunColumns(architecture="nope"), "architecture: no column 'nope'; neither flops"),
        (
            {},
            RunColumns(architecture="router_type", upstream="nope", flops="total"),
            "upstream: no column 'nope'",
        ),
        (
            {},
            RunColumns(architecture="router_type"),
            "neither flops 'flops_forward' nor params 'params_total'",
        ),
        (
            {},
            RunColumns(architecture="router_type", run_id="id", flops="total"),
            "row 3: run 'Dense1' appears twice",
        ),
    ],
)
def test_a_wrong_table_is_one_line_that_names_file_and_row(raw, tmp_path, change, columns, said):
    raw = raw.astype(object)
    for key, value in change.items():
        raw.loc[2, key] = value
    path = write(raw, tmp_path / "runs.csv")
    if change:  # the wrong row must be among those that are read
        raw.loc[3, list(change)] = raw.loc[2, list(change)]
        raw = raw.drop(index=2).reset_index(drop=True)
        path = write(raw, path)
    with pytest.raises(InputError) as error:
        run_table.read_table(path, columns)
    assert (
        said in str(error.value) and "runs.csv" in str(error.value) and "\n" not in str(error.value)
    )


def test_a_file_that_is_no_table_is_one_line(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is not parquet")
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x": ')
    (tmp_path / "a.csv").write_text("x,y\n")
    (tmp_path / "a.xlsx").write_text("")
    for name in ("a.parquet", "a.jsonl", "a.csv", "a.xlsx", "none.csv"):
        with pytest.raises(InputError) as error:
            run_table.read_table(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def isoflop_table() -> pd.DataFrame:
    """Four sizes, each trained with three budgets: twelve runs, no seeds."""
    rows = [
        {"architecture": "a", "params_total": n, "flops_forward": budget / 1e9, "upstream_nll": y}
        for i, n in enumerate((1e7, 2e7, 4e7, 8e7))
        for budget, y in ((1e18, 3.5 - i / 10), (2e18, 3.3 - i / 9), (4e18, 3.1 - i / 8))
    ]
    return pd.DataFrame(rows)


def test_cells_that_mix_runs_are_refused(tmp_path):
    """Their losses were averaged without a word, as if the budgets were seeds."""
    path = write(isoflop_table(), tmp_path / "iso.csv")
    said = (
        "iso.csv: row 4: flops_forward = 4000000000.0 is 4 times that of row 2, of the same cell "
        "(a-1e+07); 4 of 4 cells mix runs whose flops_forward differs: name what tells them apart "
        "with --size or --protocol; --trust-units if it is right"
    )
    with pytest.raises(InputError) as error:
        run_table.read_table(path)
    assert str(error.value).endswith(said)
    assert len(run_table.read_table(path, RunColumns(trust_units=True)).runs) == 12
    table = isoflop_table()
    table["size"] = ["s", "m", "l", "xl"] * 3  # parameters differ inside a cell instead
    table["flops_forward"] = 1e9
    with pytest.raises(InputError, match="of 4 cells mix runs whose params_total differs"):
        run_table.read_table(write(table, tmp_path / "mixed.csv"))


@pytest.mark.parametrize(("off", "said"), [(1.005, 0), (1.05, 1)])
def test_costs_that_were_measured_may_differ_a_little(tmp_path, off, said):
    rows = [
        {"architecture": "a", "size": s, "flops_forward": f * (off if seed else 1), "seed": seed}
        for s, f in (("s", 1e9), ("m", 4e9))
        for seed in (0, 1)
    ]
    warnings = run_table.read_table(write(pd.DataFrame(rows), tmp_path / "t.csv")).warnings
    mixed = [w for w in warnings if "cells mix runs" in w]
    assert len(mixed) == said
    if said:
        assert mixed == [
            "2 of 2 cells mix runs whose flops_forward differs by up to 5 %; they are averaged."
        ]


@pytest.mark.parametrize("column", ["tokens", "tokens_seen", "n_samples", "train_tokens", "epochs"])
def test_rows_at_several_amounts_of_data_are_no_seeds(tmp_path, column):
    """No value recurs, so the column does not look like a setting; it is one of progress."""
    rows = [
        {"architecture": "a", "size": s, "flops_forward": f, "upstream_nll": 3 - i / 9, column: d}
        for s, f in (("s", 1e9), ("m", 4e9))
        for i, d in enumerate(2e9 * np.arange(1, 5) * (1 if s == "s" else 1.37))
    ]
    with pytest.raises(InputError, match=f"differ in {column} .*--step {column} if they are check"):
        run_table.read_table(write(pd.DataFrame(rows), tmp_path / "t.csv"))

"""Runs of two families: what is read, what is kept apart, and what one family leaves as it was."""

import json

import numpy as np
import pandas as pd
import pytest

from eval.analyses import everything, two_studies
from eval.analyses.comparison import Comparison
from eval.analyses.question import Question
from eval.analyses.settings import Settings
from eval.data import families
from eval.data.cells import RunTable
from eval.data.neutral import csv
from eval.data.run_table import read_table
from eval.data.study import Study, read_study
from eval.laws.law_table import LawColumns, load
from eval.simulation.simulate import Line, study
from tests.eval import run_directories
from train.records import InputError

NAMES = ["glu", "glu (decoder-only)", "transformer", "transformer (decoder-only)"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    gains = {"glu": (0.0, 0.0), "transformer": (0.0, 0.0)}
    sizes = run_directories.LADDER[:2]
    return run_directories.write_families(tmp_path_factory.mktemp("runs"), gains, sizes, 1)


@pytest.fixture(scope="module")
def both(path) -> Study:
    return read_study(path)


def test_a_study_says_the_family_of_every_run_and_keeps_the_names(both):
    assert set(both.runs.architecture) == {"glu", "transformer"}
    counts = both.runs.family.value_counts().to_dict()
    assert counts == {"decoder_only": 8, "encoder_decoder": 4}
    assert list(both.unfinished.columns[:3]) == ["run_id", "architecture", "family"]


def test_the_layers_of_one_stack_are_not_halved(both):
    layers = both.shapes.set_index("run_id").num_layers
    assert layers["glu-nano-s0"] == layers["glu-nano-DL3-decoder_only-s0"] == 2


def test_each_family_is_a_group_of_its_own_and_is_renamed_once(both):
    apart = both.told_apart()
    assert sorted(set(apart.runs.architecture)) == NAMES
    assert list(families.plain_names(apart.runs)) == list(both.runs.architecture)
    assert families.told_apart(apart.runs) is not None
    pd.testing.assert_frame_equal(families.told_apart(apart.runs), apart.runs)
    groups = Comparison(both, Question()).names
    assert groups == Comparison(apart, Question()).names == NAMES


@pytest.mark.parametrize("family", families.FAMILIES)
def test_one_family_keeps_its_names(both, family):
    runs = both.runs[both.runs.family == family]
    assert families.told_apart(runs) is runs
    assert not families.several(runs)


def test_a_cell_of_two_families_is_no_duplicate(both):
    runs = both.runs[both.runs.protocol == ""].assign(size="nano")
    runs = runs.drop_duplicates(["architecture", "family"])
    assert len(RunTable(runs).frame) == 4
    with pytest.raises(InputError, match="another run has the same"):
        RunTable(runs.assign(family="decoder_only"))


def test_the_names_of_declared_runs_have_their_family(path):
    cells = [
        {"architecture": "glu", "size": "nano", "seed": 0},
        {"architecture": "glu", "size": "nano-DL3", "seed": 0, "family": "decoder_only"},
        {"architecture": "glu", "size": "base", "seed": 0, "family": "decoder_only"},
    ]
    manifest = path / "study.json"
    manifest.write_text(json.dumps({"cells": cells}))
    found = read_study(path).warnings
    manifest.unlink()
    assert found[0].startswith("1 of the 3 runs") and "glu-base-decoder_only-s0" in found[0]


def test_flops_per_batch_are_refused_for_decoder_only_runs(both):
    with pytest.raises(InputError, match="8 of 12 runs are of decoder-only models"):
        everything.with_counts(both, Settings(count_flops="per_batch"))


def test_conditions_choose_a_family(path):
    read = read_study(path, ("family=decoder_only", "architecture=glu"))
    assert len(read.runs) == 4 and set(read.runs.family) == {"decoder_only"}


def test_a_table_of_a_report_gives_the_same_groups(both, tmp_path):
    for name, runs in (("recorded", both.runs), ("apart", both.told_apart().runs)):
        file = tmp_path / f"{name}.csv"
        file.write_text(csv(runs))
        read = read_table(file)
        assert set(read.runs.family) == set(families.FAMILIES)
        assert sorted(set(RunTable(read).frame.architecture)) == NAMES


def test_runs_of_a_table_are_named_by_their_family_and_may_differ_in_it(tmp_path):
    file = tmp_path / "runs.csv"
    rows = [
        f"glu,{family},nano,{params},{params}0000,3.{i}"
        for i, (family, params) in enumerate((("", 2000), ("decoder_only", 9000)))
    ]
    head = "architecture,family,size,params_total,flops_forward,upstream_nll"
    file.write_text("\n".join([head, *rows]))
    assert set(read_table(file).runs.run_id) == {"glu-nano-s0", "glu-nano-decoder_only-s0"}


def test_another_meaning_of_the_column_is_a_users_own(tmp_path):
    table = study({"glu": Line(), "transformer": Line()}, sizes=4, seeds=1)
    file = tmp_path / "runs.csv"
    file.write_text(csv(table.assign(family=["GPT", "BERT"] * 4)))
    read = read_table(file)
    assert set(read.runs.family) == {""}
    assert set(RunTable(read).frame.architecture) == {"glu", "transformer"}


def test_laws_are_fitted_per_family(path):
    table, columns = load(path, LawColumns())
    assert columns["group"] == "architecture"
    assert sorted(set(table.frame["architecture"])) == NAMES


def test_two_studies_match_runs_of_one_family(path, tmp_path):
    found = two_studies.compare_studies(path, path)
    assert len(found["cells"]) == 12 and found["missing"].empty
    assert found["overall"].n_cells.iloc[0] == 12
    other = run_directories.write_study(tmp_path, ("transformer",), ("nano",))
    found = two_studies.compare_studies(path, other)
    assert list(found["cells"].family) == ["encoder_decoder"]
    assert np.isfinite(found["cells"].upstream_change).all()

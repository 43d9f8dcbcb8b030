"""Studies that several test files use."""

from pathlib import Path

import pytest

from eval.analyses import everything
from eval.data.study import read_study
from tests.eval import run_directories


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """Four architectures at three sizes, one seed."""
    names = ("glu", "lconv", "transformer", "universal")
    return run_directories.write_study(tmp_path_factory.mktemp("runs"), names, study="small")


@pytest.fixture(scope="session")
def ladders(tmp_path_factory) -> Path:
    """Four architectures at four sizes, two seeds, with the depth and width protocols."""
    names = ("evolved", "lconv", "mos", "transformer")
    return run_directories.write_study(
        tmp_path_factory.mktemp("runs"),
        names,
        run_directories.LADDER[:4],
        2,
        protocols=("", "depth", "width"),
        study="ladders",
    )


@pytest.fixture(scope="session")
def analysis(ladders) -> everything.Analysis:
    """Everything computed from `ladders`."""
    return everything.analyse(read_study(ladders))

"""The records that come with the project: every verb of `eval` reads them, and `make demo`."""

import shlex
from pathlib import Path

import pytest

import eval as evaluation
from benchmarks import examples
from benchmarks.examples import RECORDS, TABLE
from eval.__main__ import main
from eval.data import neutral

ROOT = Path(__file__).parents[1]


def test_the_example_has_architectures_sizes_and_scores():
    runs = evaluation.read_study(RECORDS).runs
    assert runs.groupby("architecture").ngroups == 12
    assert (runs.groupby("architecture")["size"].nunique() == 4).all()
    assert runs.downstream_mean.notna().all()


def test_the_table_is_the_example_under_other_names():
    runs = evaluation.read_study(RECORDS).runs
    assert TABLE.read_text() == neutral.csv(examples.exported(runs))


@pytest.mark.slow
@pytest.mark.parametrize("path", [RECORDS, TABLE], ids=lambda path: path.suffix)
@pytest.mark.parametrize(
    "verb", ["slopes", "pareto", "compare", "saturation", "fit", "next --bootstrap 20"]
)
def test_every_verb_reads_the_examples(path, verb, capsys):
    if verb == "saturation" and path == TABLE:
        pytest.skip("a table of runs has no checkpoints")
    name, *options = shlex.split(verb)
    if path == TABLE and name in ("fit", "next"):
        options += ["--x", "model/num_parameters", "--loss", "eval/loss"]
        options += ["--group", "config.architecture", "--form", "power"]
    assert main([name, str(path), *options]) == 0, capsys.readouterr().err
    assert "glu" in capsys.readouterr().out


def test_a_table_of_a_tracker_says_what_it_was_read_as(capsys):
    assert main(["slopes", str(TABLE)]) == 0
    said = capsys.readouterr().err
    assert "read 'config.architecture' as architecture" in said
    assert "'eval/loss' as upstream_nll" in said


def test_make_demo_reports_on_it():
    recipe = (ROOT / "Makefile").read_text().split("\ndemo:")[1].split("\n")[1]
    assert recipe.split("python ")[1] == "-m eval report examples/cpu.tar.gz --out reports/demo"

"""The report: promised files, equal bytes on repetition, awkward studies, one-line errors."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from eval.__main__ import _verbs, main
from eval.analyses import everything
from eval.analyses.settings import Settings
from eval.data.study import read_study
from eval.report import figures, grid, style, summary, write
from eval.report.law_figures import log_x
from eval.report.page import chart_data, sections
from tests.eval import run_directories
from train.records import InputError

# Files that other projects' scripts rely on.
PROMISED = (
    [
        "runs.csv",
        "report.html",
        "pareto.csv",
        "crossovers.csv",
        "rank_correlation.csv",
        "protocols.csv",
    ]
    + [f"table1.{kind}" for kind in ("csv", "md", "tex")]
    + [f"table2_slopes.{kind}" for kind in ("csv", "md", "tex")]
    + ["claims.csv", "claims.md", "sources.csv", "sources.md"]
    + [f"fig{n}.{kind}" for n in range(1, 4) for kind in ("pdf", "png")]
)  # fig4 and fig5 only where runs have the depth and width protocols


def digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.mark.slow
def test_everything_promised_is_written_and_the_same_twice(small, tmp_path):
    # Two processes with different hash seeds: nothing may depend on the order of a set.
    for n in ("1", "2"):
        command = [sys.executable, "-m", "eval", "report", str(small), "--out", str(tmp_path / n)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONHASHSEED": n},
        )
        assert done.returncode == 0, done.stderr
    first, second = digests(tmp_path / "1"), digests(tmp_path / "2")
    assert set(PROMISED) <= set(first)
    assert {"analyses/learning_curves.pdf", "analyses/learning_curves.csv"} <= set(first)
    assert "analyses/laws.csv" in first and "analyses/attainment.png" not in first  # one seed
    assert first == second
    assert "Table 1" in done.stdout and "report.html" in done.stdout and "unigram" in done.stdout
    assert "warning: Every cell has one seed" in done.stderr


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(small, tmp_path):
    made, name = [], "learning_curves"
    for n in ("1", "2"):
        analysis = everything.analyse(read_study(small))
        (tmp_path / n).mkdir()
        figures.save({name: figures.draw_more(analysis)[name]}, tmp_path / n)
        made.append((dict(write.texts(analysis)), digests(tmp_path / n)))
    assert made[0] == made[1]
    assert {name for name in PROMISED if not name.startswith("fig")} <= set(made[0][0])


def test_runs_csv_has_exactly_the_stores_columns(small):
    study = read_study(small)
    analysis = everything.analyse(study)
    texts = dict(write.texts(analysis))
    assert texts["runs.csv"].splitlines()[0] == ",".join(study.runs.columns)
    assert "entropy" in texts["table1.md"] and "| 6.250 | \u2013 | 34.0 |" in texts["table1.md"]
    assert "not enough points" in texts["table2_slopes.md"]


@pytest.mark.slow
def test_importing_the_report_imports_neither_jax_nor_tensorflow():
    code = "import sys, eval.report.write, eval.__main__\n"
    code += "print([m for m in ('jax', 'tensorflow', 'seqio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_figures_are_drawn_where_there_is_something_to_draw(small, ladders):
    one_seed = everything.analyse(read_study(small))
    drawn = figures.draw(one_seed)
    assert list(drawn) == ["fig1", "fig2", "fig3"]
    titles = [panel.get_title(loc="left") for panel in drawn["fig2"].axes]
    assert titles == ["glu", "universal", "lconv"]
    assert list(figures.draw_more(one_seed)) == ["learning_curves"]
    analysis = everything.analyse(read_study(ladders))
    drawn = figures.draw(analysis)
    assert list(drawn) == [f"fig{n}" for n in range(1, 6)] and len(drawn["fig4"].axes) == 8
    more = figures.draw_more(analysis)
    names = ("evolved", "lconv", "mos", "transformer")
    assert list(more) == ["attainment", "learning_curves", *(f"law_{name}" for name in names)]
    words = [t.get_text() for panel in more["attainment"].axes for t in panel.texts]
    assert words == ["2 repetitions (seeds): best, median and worst"] * 2


@pytest.mark.slow
def test_a_panel_without_a_point_is_not_drawn(tmp_path):
    study = read_study(run_directories.write_study(tmp_path, ("glu", "transformer"), tasks=()))
    drawn = figures.draw(everything.analyse(study))
    assert list(drawn) == ["fig1", "fig2"]
    assert [panel.get_title(loc="left") for panel in drawn["fig1"].axes] == ["Upstream"]


@pytest.mark.slow
def test_figures_of_an_earlier_report_are_removed_and_nothing_else(small, tmp_path):
    (tmp_path / "analyses").mkdir()
    old = ["fig5.png", "analyses/law03.pdf", "analyses/law_gone.png", "analyses/attainment.png"]
    kept = ["fig9.png", "fig5.svg", "my_fig5.png", "analyses/notes.pdf"]
    for name in (*old, *kept):
        (tmp_path / name).write_text("")
    write.write(read_study(small), tmp_path)
    assert not [name for name in old if (tmp_path / name).exists()]
    assert all((tmp_path / name).exists() for name in (*kept, "fig1.png"))


@pytest.mark.parametrize("cost", [1406976.0, np.nextafter(1406976.0, 0), 3.0, 1e30])
def test_a_single_cost_has_an_axis_around_it(cost):
    axes = Figure().subplots()
    axes.plot([np.exp(np.log(cost)), cost], [1, 2])
    log_x(axes)
    low, high = axes.get_xlim()
    assert low <= cost / 2 and high >= 2 * cost


def test_names_of_law_figures_are_safe_and_differ():
    assert figures.law_name("transformer") == "law_transformer"
    assert figures.law_name("a/../b c") == "law_a_.._b_c"
    assert figures.law_name("\u4e2d") == "law__" and figures.law_name("/", ("law__",)) == "law___2"
    assert len(figures.law_name("x" * 500)) < 80


def test_no_text_of_a_figure_has_a_question_mark_for_a_line_break():
    assert style.plain("two\nlines\tof $x$") == r"two lines of \$x\$"


def test_points_on_one_another_are_found():
    x, y = np.array([0.0, 0.001, 1.0, 1.0, 0.5]), np.array([0.0, 0.001, 1.0, 0.9, 0.5])
    assert figures.crowds(x, y) == [[0, 1]]
    assert figures.crowds(x[:1], y[:1]) == []


def test_figures_say_what_their_error_bars_are(small, ladders):
    def said(study):
        return figures.errors_in_words(everything.analyse(read_study(study)))

    assert said(small).endswith("common to all cells and is not for comparing them.")
    assert said(ladders) == "Bars: standard error over seeds."


def test_the_summary_says_which_architectures_a_range_is_about(analysis):
    scope = summary.sentences(analysis)[0]
    table = analysis.runs.main().frame
    own = table[table.architecture == "transformer"].flops_forward
    for flops, whose in (
        (table.flops_forward, "over all architectures"),
        (own, "for transformer alone"),
    ):
        times = f"({flops.max() / flops.min():,.0f}-fold)"
        ends = f"{grid.scaled(flops.min())} to {grid.scaled(flops.max())} FLOPs"
        assert f"{ends} {times} {whose}" in scope


@pytest.fixture(scope="module")
def guessed(small) -> everything.Analysis:
    """A study in which every score is at chance."""
    study = read_study(small)
    study.runs["downstream_mean"] = 20.0
    return everything.analyse(study)


def test_scores_at_chance_are_named_as_the_cause_wherever_something_is_missing(guessed):
    why = "the score of every cell is at chance"
    assert summary.no_scores(guessed) == why
    (said,) = (line for line in summary.sentences(guessed) if "no better than chance" in line)
    assert "More sizes or seeds do not change that" in said
    (ranks,) = (part for part in sections.sections(guessed) if part.anchor == "ranks")
    notes = {one.name: " ".join(one.notes) for one in ranks.grids}
    assert why in notes["agreement"] and why in notes["discordant"]
    assert f"because {why}" in dict(write.texts(guessed))["table2_slopes.md"]
    assert chart_data.charts(guessed)["no_scores"] == why
    claims = guessed.results["claims"]
    assert claims.would_settle[claims.claim == 7].str.startswith("scores above chance").all()


def test_no_table_of_a_page_is_empty_without_a_reason(guessed, tmp_path):
    alone = run_directories.write_study(tmp_path, ("glu",), ("nano",), tasks=())
    runs = read_study(alone).runs
    runs.to_csv(tmp_path / "runs.csv", index=False)
    studies = [read_study(alone), write.load(tmp_path / "runs.csv")]
    for analysis in (guessed, *map(everything.analyse, studies)):
        for part in sections.sections(analysis):
            for one in part.grids:
                assert one.rows or any(" because " in note for note in one.notes), one.name
    (compared,) = (p for p in sections.sections(analysis) if p.anchor == "comparison")
    assert "only one architecture" in compared.grids[0].notes[0]


def test_the_mark_of_cells_at_one_place_is_outside_their_markers(tmp_path):
    path = run_directories.write_study(tmp_path, ("glu", "lconv", "transformer"), tasks=())
    study = read_study(path)
    same = study.runs.architecture.isin(["glu", "lconv"])
    for column in ("flops_forward", "upstream_nll"):
        study.runs[column] = study.runs[column].mask(
            same, study.runs.groupby("size")[column].transform("first")
        )
    (panel,) = figures.pareto(everything.analyse(study)).axes
    marks = [text for text in panel.texts if text.get_text() == "\u00d72"]
    assert len(marks) == 3
    # Areas are in square points; the largest marker is that of the most parameters.
    drawn = [dots for dots in panel.collections if isinstance(dots, PathCollection)]
    largest = max(float(size) for dots in drawn for size in dots.get_sizes())
    for mark in marks:
        x, y = mark.xyann
        assert x == -y and 4 < x <= 0.71 * largest**0.5 + 1
        assert mark.get_bbox_patch() is not None
        assert mark.zorder > max(dots.zorder for dots in panel.collections)
    assert max(mark.xyann[0] for mark in marks) > 0.5 * (largest / 1.1) ** 0.5


AWKWARD = {
    "one run": dict(architectures=("glu",), sizes=("nano",)),
    "no task": dict(tasks=()),
    "names": dict(
        architectures=("transformer", "<script>alert(1)</script> & 50%_$x$|", "\u4e2d\u6587")
    ),
    "one size": dict(sizes=("nano",)),
    "one architecture": dict(architectures=("transformer",)),
    "two sizes": dict(sizes=("nano", "micro"), seeds=2),
    "one task": dict(tasks=("python_match",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_studies_give_an_honest_report(tmp_path, case):
    options = {
        "architectures": ("glu", "transformer"),
        "sizes": ("nano", "micro", "milli"),
    } | AWKWARD[case]
    study = read_study(run_directories.write_study(tmp_path, **options))
    analysis = write.write(study, tmp_path / "out")
    slopes = analysis.results["slopes"]
    thin = slopes[slopes.n_sizes < 3]
    assert thin.ci_low.isna().all() and (thin.note != "").all()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>alert" not in page and "Read this first" in page


@pytest.mark.slow
def test_equal_flops_and_missing_values_are_survived(tmp_path):
    study = read_study(run_directories.write_study(tmp_path, ("glu", "transformer"), seeds=2))
    runs = study.runs.copy()
    runs.loc[0, ["upstream_nll", "steps_per_second"]] = float("nan")
    runs["flops_forward"] = 1e9
    runs.to_csv(tmp_path / "runs.csv", index=False)
    analysis = everything.analyse(write.load(tmp_path / "runs.csv"))
    flat = analysis.results["slopes"].query("alpha == 'F,U'")
    assert flat.slope.isna().all() and flat.note.str.contains("same x").all()
    assert any("no held-out loss" in warning for warning in analysis.study.warnings)
    assert len(dict(write.texts(analysis))["report.html"]) > 1e6


def test_flops_and_parameters_can_be_counted_otherwise(ladders):
    study = read_study(ladders)
    runs, quantities = everything.with_counts(
        study, Settings(count_flops="without_head", count_params="non_embedding")
    )
    table = runs.frame
    share = (table[quantities.flops.column] / table.flops_forward).round(9)
    assert share.eq(0.9).all() and quantities.params.column == "params_non_embedding"
    runs, quantities = everything.with_counts(study, Settings(count_flops="per_batch"))
    table = runs.frame
    assert (table[quantities.flops.column] / table.flops_forward).eq(65536 / 128).all()
    runs, quantities = everything.with_counts(study, Settings(count_flops="train_total"))
    assert quantities.flops.column == "flops_train_total"
    with pytest.raises(InputError, match="score 'downstream_nope': no such column"):
        everything.analyse(study, Settings(score="downstream_nope"))


@pytest.mark.parametrize(
    ("variance", "errors"),
    [
        ("separate", "size"),
        ("pooled", "seed"),
        pytest.param("separate", "seed", marks=pytest.mark.slow),
        pytest.param("pooled", "size", marks=pytest.mark.slow),
    ],
)
def test_bands_are_those_of_table_2(ladders, errors, variance):
    """In the middle the band is s / sqrt(n) wide, if the slope's interval is s / sqrt(sxx)."""
    options: Any = {"errors": errors, "variance": variance}
    analysis = everything.analyse(read_study(ladders, ("protocol=",)), Settings(**options))
    slopes = (
        analysis.results["slopes"]
        .query("link == 'semilog' and alpha == 'F,U'")
        .set_index("architecture")
    )
    bands = figures.lines_and_bands(analysis.runs, everything.question_of(analysis.settings), 3)
    charts = {
        line["architecture"]: line
        for line in chart_data.charts(analysis)["lines"]
        if (line["x_axis"], line["y_axis"]) == ("flops_forward", "upstream_nll")
    }
    step = np.log10(3.5)
    for name in ("lconv", "transformer"):
        band = bands[name, ""]
        wide = (slopes.ci_high[name] - slopes.ci_low[name]) * np.sqrt(5 * step**2 / 4)
        assert band.slope == pytest.approx(slopes.slope[name])
        assert band.high[1] - band.low[1] == pytest.approx(wide, rel=1e-6)
        ends = [charts[name][key][0] for key in ("y", "low", "high")]
        assert ends == pytest.approx([band.y[0], band.low[0], band.high[0]])


@pytest.mark.slow
def test_three_sizes_with_seeds_have_a_band_from_the_seeds(tmp_path):
    study = read_study(run_directories.write_study(tmp_path, ("glu", "transformer"), seeds=2))
    few = "no 95% band of the line: fewer than 4 sizes"
    for options, said in ((Settings(), few), (Settings(errors="seed"), "95% band of the line")):
        drawn = figures.draw(everything.analyse(study, options))["fig2"]
        assert said in [text.get_text() for text in drawn.legends[0].get_texts()]


def test_a_study_without_a_plain_protocol_says_which_it_compares(tmp_path):
    directory = run_directories.write_study(
        tmp_path, ("glu", "transformer"), protocols=("width", "depth")
    )
    study = read_study(directory)
    analysis = everything.analyse(study)
    said = (
        "under the scaling protocol 'depth' (none is the plain one, and none has more runs); 6 of "
        "12 runs, under"
    )
    assert any(said in warning for warning in summary.warnings(analysis))
    assert len(analysis.results["protocol_differences"])


@pytest.mark.parametrize("verb", ["slopes", "pareto", "compare"])
def test_every_verb_says_what_another_protocol_hides(ladders, capsys, verb):
    assert main([verb, str(ladders), "--format", "csv"]) == 0
    said = (
        "the plain scaling protocol; 64 of 96 runs, under 'depth', 'width', take no part. --where "
        "protocol=depth"
    )
    captured = capsys.readouterr()
    assert said in captured.err and "protocol" not in captured.out.splitlines()[0]


@pytest.mark.slow
def test_one_protocol_of_a_directory_can_be_reported(ladders, capsys):
    assert main(["slopes", str(ladders), "--where", "protocol=depth", "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert (
        "warning: 64 of 96 finished runs are left out: they do not meet protocol=depth."
        in captured.err
    )
    rows = [
        row for row in json.loads(captured.out) if (row["alpha"], row["link"]) == ("F,U", "semilog")
    ]
    want = everything.analyse(read_study(ladders)).results["protocols"]
    want = want[(want.protocol == "depth") & (want.alpha == "F,U") & (want.link == "semilog")]
    assert [row["slope"] for row in rows] == pytest.approx(list(want.slope))
    chosen = everything.analyse(read_study(ladders, ("protocol=depth",)))
    assert list(figures.draw(chosen)) == ["fig1", "fig2", "fig3", "fig4"]
    assert set(dict(write.texts(chosen))) >= {
        name for name in PROMISED if not name.startswith("fig")
    }


def test_the_reference_is_among_the_runs_compared(tmp_path):
    """The transformer was run only under the depth protocol.

    The plain runs are compared with the first architecture among them.
    """
    plain = run_directories.write_study(tmp_path, ("glu", "lconv"), study="mixed")
    run_directories.write_study(
        tmp_path, ("transformer", "glu"), protocols=("depth",), study="mixed"
    )
    analysis = everything.analyse(read_study(plain))
    assert analysis.reference == "glu" and set(analysis.results["contrasts"].reference) == {"glu"}
    assert any(
        "no transformer among the runs compared" in warning
        for warning in summary.warnings(analysis)
    )
    with pytest.raises(
        InputError,
        match="reference 'transformer' is not among the architectures compared: glu, lconv",
    ):
        everything.analyse(read_study(plain), Settings(reference="transformer"))


def test_a_table_gives_the_slopes_of_its_study(small, capsys, tmp_path):
    runs = read_study(small).runs
    runs.rename(columns={"flops_forward": "f", "architecture": "kind"}).to_csv(
        tmp_path / "t.csv", index=False
    )
    assert (
        main(
            [
                "slopes",
                str(tmp_path / "t.csv"),
                "--architecture",
                "kind",
                "--flops",
                "f",
                "--format",
                "json",
            ]
        )
        == 0
    )
    from_table = json.loads(capsys.readouterr().out)
    want = everything.analyse(read_study(small)).results["slopes"]
    assert [row["slope"] for row in from_table] == pytest.approx(list(want.slope))
    assert from_table[0]["ci_low"] is None


@pytest.mark.parametrize("verb", ["slopes", "pareto", "compare"])
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_every_verb_prints_every_form(small, capsys, verb, form):
    assert main([verb, str(small), "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "json":
        assert json.loads(out)
    assert "transformer" in out and "Traceback" not in out


def test_compare_answers_first_in_the_words_of_the_report(ladders, capsys):
    assert main(["compare", str(ladders)]) == 0
    out = capsys.readouterr().out
    report = summary.sentences(everything.analyse(read_study(ladders)))
    said = [line for line in report if line.startswith("Upstream")][:2]
    assert out.splitlines()[:2] == said
    order = [out.index(f"\n{name}\n") for name in ("Contrasts", "Level differences")]
    order += [out.index(f"\n{name}\n") for name in ("Multipliers", "Equivalence", "Crossovers")]
    assert order == sorted(order)
    assert "permutation" not in out and "nested" not in out


def test_further_tests_are_printed_when_asked_for_and_always_in_files(ladders, capsys):
    assert main(["compare", str(ladders), "--all-tests"]) == 0
    out = capsys.readouterr().out
    assert out.count("which decide nothing") == 2 and "p (permutation)" in out
    assert main(["compare", str(ladders), "--format", "json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert tables["equal_slopes"] and "p_permutation" in tables["contrasts"][0]


@pytest.mark.parametrize("options", [["--x", "P"], ["--link", "loglog"], ["--y", "D", "--x", "P"]])
def test_compare_has_a_sentence_for_every_pair(ladders, capsys, options):
    assert main(["compare", str(ladders), *options]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Downstream, " if "D" in options else "Upstream, ")
    assert "after correction for 3 comparisons" in first
    unit = "in the exponent" if "loglog" in options else "per tenfold parameters"
    assert unit in first


BAD = [
    (["report"], "PATH"),
    (["report", "RUNS", "--ouut", "x"], "--ouut"),
    (["report", "RUNS", "--level", "high"], "--level"),
    (["report", "RUNS", "--level", "1.5"], "level = 1.5 must be above 0 and below 1"),
    (["report", "RUNS", "--count-flops", "none"], "count-flops"),
    (
        ["report", "RUNS", "--reference", "nope"],
        "reference 'nope' is not among the architectures compared: glu",
    ),
    (["report", "RUNS", "--score", "nope"], "score 'nope': no such column"),
    (["report", "nowhere"], "'nowhere': no such file or directory"),
    (["report", "RUNS", "--out", "FILE/out"], "cannot be written"),
    (["slopes", "RUNS", "--pairs", "XY"], "X"),
    (["slopes", "FILE"], "ends in .csv"),
    (["pareto", "RUNS", "--cost", "Q"], "'Q'"),
    (
        ["slopes", "RUNS", "--flops", "f"],
        "flops = 'f' is about a table's columns, but this is a directory of runs",
    ),
    (["report", "RUNS", "--fractions"], "fractions = True is about"),
    (["pareto", "RUNS", "--where", "size=huge"], "no row has size=huge"),
    (["nonsense"], "nonsense"),
    ([], "report"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[" ".join(a) or "nothing" for a, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(small, tmp_path, capsys, arguments: list[str], said: str):
    (tmp_path / "FILE").write_text("")
    places = {
        "RUNS": str(small),
        "FILE": str(tmp_path / "FILE"),
        "FILE/out": str(tmp_path / "FILE" / "out"),
    }
    assert main([places.get(a, a) for a in arguments]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0], captured.err
    assert captured.out == ""


VERBS = (
    "report",
    "slopes",
    "pareto",
    "compare",
    "compare-studies",
    "saturation",
    "tune",
    "fit",
    "predict",
    "allocate",
    "next",
    "chain",
    "archive",
)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys, verb):
    """A clash of option names appears only when the parser of that verb is built."""
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    captured = capsys.readouterr()
    assert (
        not stop.value.code
        and verb in captured.out
        and "Traceback" not in captured.out + captured.err
    )


def test_the_verbs_above_are_all_there_are():
    assert set(_verbs("")) == set(VERBS)


def test_help_names_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert (
        stop.value.code == 0
        and "--out" in out
        and "(default: reports)" in out
        and "(default: 0.95)" in out
    )


@pytest.mark.slow
def test_all_architectures_sizes_and_tasks_of_the_paper(tmp_path):
    path = run_directories.write_study(
        tmp_path, run_directories.ZOO, run_directories.LADDER, 2, run_directories.PAPER_TASKS
    )
    write.write(read_study(path), tmp_path / "out")
    assert len(pd.read_csv(tmp_path / "out" / "runs.csv")) == 168


def test_slopes_of_runs_that_never_left_their_warmup_are_warned_of(analysis):
    def warned(steps: str, warmup: str) -> bool:
        rows = [("pretrain.steps", steps, 9), ("pretrain.optimizer.warmup_steps", warmup, 9)]
        settings = pd.DataFrame(rows, columns=["setting", "value", "runs"])
        study = dataclasses.replace(analysis.study, settings=settings)
        found = summary.warnings(dataclasses.replace(analysis, study=study))
        return any("warmed up" in line for line in found)

    assert warned("60", "100") and warned("100", "100") and not warned("300", "100")

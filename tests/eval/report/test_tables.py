"""Tables 1 and 2: hand-computed numbers; output in Markdown, LaTeX and a terminal."""

import dataclasses
import io
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from eval.analyses import everything
from eval.analyses.comparison import Comparison
from eval.analyses.question import Question
from eval.analyses.slopes import Slopes
from eval.data import chance
from eval.data.cells import RunTable
from eval.data.quantity import FLOPS, LOSS, SCORE
from eval.data.study import BITS_PER_BYTE, read_study
from eval.report import figures, grid, listing, style, tables, words
from eval.report.page import chart_data
from eval.simulation.simulate import Line
from eval.simulation.simulate import study as study_of
from eval.stats.regression import least_difference
from tests.eval import run_directories
from tests.eval.frames import by
from train import records

AWKWARD = "<b>a&b</b> 50% $x_1$ #1 ~^\\{} | *bold* \u03b1\u4e2d"


def test_cells_are_means_over_seeds_with_both_errors(tmp_path):
    path = run_directories.write_study(tmp_path, ("glu",), ("nano", "micro"), 3)
    study = read_study(path)
    cells = tables.cells(study).set_index("size")
    runs = study.runs[study.runs["size"] == "micro"]
    values = runs.downstream_python_match.to_numpy()
    assert cells.n_seeds["micro"] == 3
    assert cells.downstream_python_match["micro"] == pytest.approx(values.mean())
    assert cells.downstream_python_match_se["micro"] == pytest.approx(
        values.std(ddof=1) / np.sqrt(3)
    )
    assert cells.downstream_python_match_se_eval["micro"] == pytest.approx(2.2)
    # Five independent tasks, each with a standard error of 2.2.
    assert cells.downstream_mean_se_eval["micro"] == pytest.approx(2.2 * np.sqrt(5) / 5)
    assert cells.upstream_nll["micro"] == pytest.approx(runs.upstream_nll.mean())


def test_cells_with_one_seed_have_no_error_over_seeds(small):
    cells = tables.cells(read_study(small))
    assert cells.upstream_nll_se.isna().all() and (cells.upstream_nll_se_eval == 0.02).all()
    shown = tables.table1(read_study(small))
    assert any("one seed per cell" in note for note in shown.notes)


def test_a_mean_over_fewer_seeds_says_over_how_many(tmp_path):
    path = run_directories.write_study(tmp_path, ("glu", "transformer"), ("nano",), 3)
    for seed, lost in ((0, "python_match"), (1, "python_match"), (1, "python_package")):
        evals = path / f"glu-nano-s{seed}" / "evals.jsonl"
        evals.write_text(
            "\n".join(line for line in evals.read_text().splitlines() if lost not in line) + "\n"
        )
    study = read_study(path)
    row = by(tables.cells(study), "architecture")["glu"]
    counts = [
        row[f"{c}_n"]
        for c in ("upstream_nll", "downstream_python_match", "downstream_python_package")
    ]
    assert row["n_seeds"] == 3 and counts == [3, 1, 2]
    shown = tables.table1(study)
    heads = [column.label for column in shown.columns]
    cells = next(row.cells for row in shown.rows if row.architecture == "glu")
    match, package, question = (
        cells[heads.index(name)].detail for name in ("match", "package", "questions")
    )
    assert (
        match == "\u00b12.2\u00b0 (1 of 3)"
        and package.endswith(" (2 of 3)")
        and "of" not in question
    )
    assert any("the mean of one seed of three" in note for note in shown.notes)
    assert any("where a cell has one seed" in note for note in shown.notes)


def test_table1_has_bits_per_byte_and_the_ratio_of_exact_flops_to_the_rule(small):
    study = read_study(small)
    cells = tables.cells(study)
    np.testing.assert_allclose(cells.upstream_bits_per_byte, 0.4 * cells.upstream_nll)
    assert (cells.upstream_bits_per_byte_se_eval == 0.008).all()
    # 9600 forward passes' worth of FLOPs; 6 x (FLOPs / 50) parameters x 100 steps of 4096 tokens.
    np.testing.assert_allclose(cells.flops_train_over_6nd, 9600 * 50 / (6 * 100 * 4096))
    heads = [column.label for column in tables.table1(study).columns]
    assert "Bits/byte \u2193" in heads and not any("6nd" in head for head in heads)
    tasks = [heads.index(name) for name in ("match", "package", "questions")]
    assert heads.index("Loss \u2193") < heads.index("Mean \u2191") < min(tasks)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("-upstream_nll (nats)", "minus the held-out loss (nats)"),
        ("log10 flops_forward", "log10 of FLOPs of a forward pass"),
        ("ln params_total", "ln of parameters"),
        ("downstream_glue_cola (percent)", "score on glue cola (percent)"),
        ("flops_forward", "FLOPs of a forward pass"),
        ("what <this> is", "what <this> is"),
    ],
)
def test_axes_are_named_in_words(label, said):
    assert words.axis(label) == said


def test_no_axis_of_an_analysis_is_shown_as_a_column(analysis):
    shown = {k: v for k, v in analysis.results.items() if k != "law_checklist"}
    for name, frame in shown.items():
        for row in listing.listing(name, "", frame.head(50), listing.visible(frame)).rows:
            assert not any("_nll" in c.text or "flops_" in c.text for c in row.cells), name


def test_table1_says_how_large_models_of_one_size_are(tmp_path):
    study = read_study(
        run_directories.write_study(tmp_path, ("glu", "mos", "transformer"), ("nano", "micro"), 2)
    )
    runs = study.runs
    own = {"transformer": 1.0, "glu": 0.98, "mos": 1.25}
    runs["params_non_embedding"] = runs.architecture.map(own) * runs["size"].map(
        {"nano": 100.0, "micro": 1000.0}
    )
    runs.loc[(runs.architecture == "mos") & (runs["size"] == "nano"), "params_non_embedding"] = (
        150.0
    )
    cells = tables.cells(study).set_index(["architecture", "size"]).params_over_reference
    assert cells["transformer", "nano"] == cells["transformer", "micro"] == 1
    assert cells["mos", "nano"] == 1.5 and cells["mos", "micro"] == 1.25
    assert cells["glu", "micro"] == pytest.approx(0.98)
    (note,) = (note for note in tables.table1(study).notes if "same size" in note)
    assert note.endswith(": glu 0.98, mos 1.25 to 1.50.")


def test_without_a_reference_table1_compares_no_parameters(tmp_path):
    study = read_study(run_directories.write_study(tmp_path, ("glu",), ("nano",), 1))
    assert tables.cells(study).params_over_reference.isna().all()
    assert not any("same size" in note for note in tables.table1(study).notes)


def test_a_slope_is_bold_if_it_is_better_after_correction_not_if_it_is_the_steepest():
    lines = {
        "transformer": Line(),
        "gains": Line(downstream_slope=12.0),
        "loses": Line(downstream_slope=1.0),
        "alike": Line(),
    }
    runs = study_of(lines, sizes=6)
    result = Slopes(runs).table(pairs=("UD", "FU", "FD"))
    asked = [Question(y=y, link=link) for y in (LOSS, SCORE) for link in ("semilog", "loglog")]
    contrasts = pd.concat([Comparison(runs, one).contrasts() for one in asked])
    shown = tables.table2(result, 0.95, contrasts)
    assert "scales better than transformer" in " ".join(shown.notes)
    for row in shown.rows:
        by_title = dict(zip([c.title for c in shown.columns], row.cells, strict=True))
        down = by_title[f"slope of {words.slope('F,D')}"]
        assert down.bold == (row.architecture == "gains"), row.cells[0].text
        assert not by_title[f"slope of {words.slope('F,U')}"].bold
    assert not any(cell.bold for row in tables.table2(result).rows for cell in row.cells)
    assert set(result.loc[result.link == "loglog", "higher_is_better"]) == {False, True}


def test_cells_go_from_the_smallest_size_to_the_largest(small):
    assert list(tables.cells(read_study(small))["size"].unique()) == ["nano", "micro", "milli"]


def test_baselines_are_shown_and_the_best_of_a_size_is_bold(small):
    study = read_study(small)
    base = chance.baselines(study)
    assert (
        base["upstream_nll"] == 6.25
        and base["downstream_python_match"] == 34.0
        and base["downstream_mean"] == 34.0
    )
    shown = tables.table1(study)
    heads = [column.label for column in shown.columns]
    first = dict(zip(heads, shown.rows[0].cells, strict=True))
    assert (
        first["Size"].text == "baseline"
        and first["Loss \u2193"].text == "6.250"
        and first["match"].text == "34.0"
    )
    nano = [row for row in shown.rows if row.cells[0].text == "nano"]
    losses = {row.architecture: row.cells[heads.index("Loss \u2193")] for row in nano}
    lowest = min(cell.value for cell in losses.values())
    axes = [q.axis() for q in (FLOPS, LOSS)]
    noise = least_difference(RunTable(study.runs).cells(axes, ("architecture", "protocol")), 0.95)
    bold = [name for name, cell in losses.items() if cell.bold]
    assert bold == [name for name, cell in losses.items() if cell.value - lowest <= noise]
    assert 0 < len(bold) < len(losses)


def test_table2_has_both_forms_with_intervals_and_named_axes(analysis):
    slopes = analysis.results["slopes"]
    shown = tables.table2(slopes)
    assert [c.label for c in shown.columns][2:] == [
        "Upstream on FLOPs",
        "Downstream on FLOPs",
        "Downstream on upstream",
        "Upstream on parameters",
        "Downstream on parameters",
        "Sizes",
    ]
    row = next(
        r for r in shown.rows if r.architecture == "transformer" and r.cells[0].text == "semilog"
    )
    want = slopes.query(
        "architecture == 'transformer' and link == 'semilog' and alpha == 'F,U'"
    ).iloc[0]
    assert row.cells[2].text == grid.number(want.slope)
    assert row.cells[2].detail == grid.interval(want.ci_low, want.ci_high)
    notes = " ".join(shown.notes)
    assert "log10 of FLOPs of a forward pass" in notes and "flops_forward" not in notes


def test_table2_says_where_there_are_too_few_points(small):
    shown = tables.table2(Slopes(read_study(small).runs).table())
    assert all(not cell.detail for row in shown.rows for cell in row.cells)
    assert "3 sizes: not enough points for an interval" in shown.notes[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.54, "0.540"),
        (-0.0428, "\u22120.0428"),
        (12345.0, "1.23e+04"),
        (0.0, "0"),
        (np.nan, "\u2013"),
        (np.inf, "\u221e"),
        (1e-268, "\u22480"),
        (99.96, "100"),
    ],
)
def test_numbers_are_short(value, text):
    assert grid.number(value) == text


def test_other_formats():
    assert (
        grid.scaled(15_234_000) == "15.2M"
        and grid.scaled(1.2e12) == "1.20T"
        and grid.scaled(12.0) == "12.0"
    )
    assert (
        grid.fixed(-0.001, 2) == "0.00"
        and grid.interval(1.0, np.nan) == ""
        and grid.probability(0.0004) == "<.001"
    )


def awkward_grid() -> grid.Grid:
    cells = (
        grid.GridCell(AWKWARD),
        grid.GridCell("1.0", "\u00b10.1 [\u22121, \u221e]", 1.0, bold=True),
    )
    columns = (grid.Column("Name_%", numeric=False), grid.Column("\u03b1 F,U", r"$\alpha_{F,U}$"))
    return grid.Grid(
        "awkward", f"Title {AWKWARD}", columns, (grid.GridRow(cells),) * 3, (f"Note {AWKWARD}",)
    )


def test_markdown_keeps_awkward_names_in_one_row():
    lines = grid.markdown(awkward_grid()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 5
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert r"\<b\>" in rows[2] and r"\*bold\*" in rows[2]


def check_latex(text: str) -> None:
    """Braces, environments and the number of columns in every row must agree.

    Nothing may be left unescaped.
    """
    body = re.sub(r"^%.*$", "", text, flags=re.M)
    assert text.isascii()
    bare = re.sub(r"\\[\\{}$&%#_]", "", body)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert re.findall(r"\\begin\{(\w+)\}", body) == re.findall(r"\\end\{(\w+)\}", body)
    for part in re.findall(r"\\begin\{longtable\}.*?\\end\{longtable\}", body, flags=re.S):
        columns = len(re.findall(r"@\{\}(\w+)@\{\}", part)[0])
        for line in part.splitlines():
            if line.endswith(r"\\") and "caption" not in line and " & " in line:
                assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line


def compile_latex(text: str, directory) -> None:
    document = (
        "\\documentclass{article}\\usepackage[margin=2cm]{geometry}\\usepackage{booktabs,longtable}\\begin{document}\n"
        f"{text}\\end{{document}}\n"
    )
    (directory / "t.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, errors="replace", timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:]
    over = [
        float(width)
        for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", done.stdout)
    ]
    assert not [width for width in over if width > 20], "a table is wider than the page"


def test_latex_is_well_formed(analysis):
    check_latex(grid.latex(awkward_grid()))
    check_latex(grid.latex(tables.table1(analysis.study)))
    check_latex(grid.latex(tables.table2(analysis.results["slopes"]), width=5, stacked=True))


def test_marks_of_cells_are_printed_in_latex():
    assert grid.escape_latex("3.1\u2021 2.0\u2020") == r"3.1$\ddagger$ 2.0$\dagger$"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(analysis, tmp_path):
    wide = run_directories.write_study(
        tmp_path, ("glu", "lconv"), ("nano",), 2, run_directories.PAPER_TASKS
    )
    parts = [
        grid.latex(awkward_grid()),
        grid.latex(tables.table1(analysis.study)),
        grid.latex(tables.table1(read_study(wide))),
        grid.latex(tables.table2(analysis.results["slopes"]), width=5, stacked=True),
    ]
    compile_latex("\n".join(parts), tmp_path)


def test_the_terminal_shows_awkward_names(capsys):
    from rich.console import Console

    for part in grid.terminal(awkward_grid(), 200):
        Console(width=200).print(part)
    assert AWKWARD in capsys.readouterr().out


def test_intervals_are_in_words_where_they_are_not_intervals():
    frame = pd.DataFrame(
        {
            "ci_low": [1.0, 1.0, 0.0, -np.inf, 0.0, 2.0, np.nan],
            "ci_high": [2.0, 2.0, np.inf, np.inf, 5.0, np.inf, np.nan],
            "interval": ["bounded", "outside", *["unbounded"] * 4, "none"],
            "bootstrap_low": 3.0,
            "bootstrap_high": 4.0,
        }
    )
    shown = listing.listing(
        "t", "", frame, "ci_low..ci_high interval bootstrap_low..bootstrap_high"
    )
    assert [row.cells[0].text for row in shown.rows] == [
        "[1.00, 2.00]",
        "not inside [1.00, 2.00]",
        "anywhere",
        "anywhere",
        "below 5.00",
        "above 2.00",
        "\u2013",
    ]
    assert {row.cells[1].text for row in shown.rows} == {"[3.0, 4.0]"}
    assert len(shown.columns) == 2 and len(shown.notes) == 2
    assert any(note.startswith("anywhere: ") for note in shown.notes)
    assert any(note.startswith("not inside [a, b]: ") for note in shown.notes)


def test_what_is_extrapolated_is_marked_and_counted(analysis):
    """Only where there is a number: a place that these data do not bound is nowhere."""
    for name, value in (("multipliers", "multiplier"), ("crossovers", "crossing")):
        frame = analysis.results[name].reset_index(drop=True)
        columns = f"architecture alpha position {value} ci_low..ci_high better_below note"
        shown = listing.listing(name, "", frame, columns)
        heads = [column.label for column in shown.columns]
        at, where = heads.index(listing.heading(value)), heads.index("Where")
        if name == "multipliers":
            far = ~frame["inside"].astype(bool)
        else:
            far = frame["position"].str.startswith("extrapolated")
        told = frame["interval"].eq("bounded") | frame["interval"].eq("none") & frame[value].notna()
        marked = [row.cells[at].text.endswith("\u2020") for row in shown.rows]
        assert marked == (far & told).to_list() and not all(marked)
        assert any(f"({sum(marked)} of {told.sum()} rows)" in n for n in shown.notes) or not any(
            marked
        )
        if name == "crossovers":
            dashes = [row.cells[where].text == grid.DASH for row in shown.rows]
            assert dashes == (~told).to_list() and any(dashes)


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.2809, 0.1949, 0.3872, "0.28"),
        (2.634, 1.771, 3.668, "2.6"),
        (4.96, 0.754, 1034.0, "5"),
        (1.017, 0.307, 1e7, "1.0"),
        (2.2727e7, 1.44e7, 3.21e7, "23M"),
        (1.23456, 1.23455, 1.23457, "1.23"),
        (41.0, 0.0, np.inf, "not bounded"),
        (41.0, -np.inf, np.inf, "not bounded"),
        (41.0, 3.333, np.inf, "at least 3.3"),
        (0.5, -np.inf, 5.0, "at most 5.0"),
        (41.0, np.nan, np.nan, "\u224840"),
        (np.nan, np.nan, np.nan, "\u2013"),
    ],
)
def test_an_estimate_has_no_more_digits_than_its_interval_supports(value, low, high, text):
    assert grid.supported(value, low, high) == text


def test_bounds_of_ratios_have_two_digits_and_no_meaningless_ends():
    assert grid.bounds(0.7069, 6.65e10, 1e-4, 1e4) == "[0.71, >10000]"
    assert grid.bounds(1e-9, 2.0, 1e-4, 1e4) == "[<0.0001, 2.0]"
    assert grid.bounds(1.44e7, 3.21e7) == "[14M, 32M]" and grid.bounds(1.0, np.nan) == ""


def test_unbounded_factors_of_cost_are_words():
    frame = pd.DataFrame(
        {
            "architecture": ["a", "b", "c"],
            "multiplier": [14.57, 0.8601, 8.26],
            "ci_low": [0.0, 0.5726, -6.2],
            "ci_high": [np.inf, 1.1965, 0.285],
            "interval": ["unbounded", "bounded", "outside"],
        }
    )
    shown = listing.listing("t", "", frame, "architecture multiplier ci_low..ci_high interval")
    texts = [(row.cells[1].text, row.cells[2].text) for row in shown.rows]
    assert texts == [
        ("not bounded", "anywhere"),
        ("0.9", "[0.57, 1.2]"),
        ("not bounded", "not inside [\u22126.2, 0.28]"),
    ]


def test_an_empty_table_says_why():
    made = listing.listing("x", "t", pd.DataFrame(columns=["a"]), "a", empty="Because of b.")
    assert made.rows == () and made.notes == ("Because of b.",)


def claim_rows(**changes) -> pd.DataFrame:
    row = {
        "claim": 8,
        "part": "a",
        "text": "t",
        "hypothesis": "h",
        "measure": "m",
        "unit": "nats",
        "effect": 0.25,
        "ci_low": 0.2,
        "ci_high": 0.3,
        "p": 0.01,
        "exact": False,
        "verdict": "supported",
        "would_settle": "",
        "note": "",
    }
    return pd.DataFrame([row | changes])


@pytest.mark.parametrize(
    ("changes", "effect", "p"),
    [
        ({}, "0.250 nats [0.200, 0.300]", ".010"),
        (
            {"unit": "times", "effect": 1.49, "ci_low": 1.3, "ci_high": 1.64, "exact": True}
            | {"p": np.nan},
            "1.49 times 1.30 to 1.64",
            "exact",
        ),
        (
            {"unit": "times", "effect": 8.26, "ci_low": -np.inf, "ci_high": np.inf},
            "not bounded",
            ".010",
        ),
        (
            {"effect": np.nan, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan},
            grid.DASH,
            grid.DASH,
        ),
    ],
)
def test_the_effect_of_a_claim_has_its_unit(changes, effect, p):
    shown = tables.claims_grid(claim_rows(**changes))
    heads = [column.label for column in shown.columns]
    cells = dict(zip(heads, shown.rows[0].cells, strict=True))
    assert cells["Effect"].whole == effect and cells["p"].text == p
    assert any(note.startswith("Exact: ") for note in shown.notes) == changes.get("exact", False)
    assert effect.split(" [")[0] in grid.markdown(shown)


def test_beside_a_corrected_p_the_interval_is_said_not_to_be(analysis):
    for name in ("contrasts", "level_differences", "equivalence"):
        frame = analysis.results[name]
        shown = listing.listing(name, "", frame, listing.visible(frame))
        assert "p (corrected)" in [column.label for column in shown.columns]
        assert any("not corrected" in note for note in shown.notes), name
    assert "not corrected" in tables.claims_grid(analysis.results["claims"]).notes[0]


@pytest.mark.parametrize("width", [50, 80, 120, 140, 200])
def test_a_terminal_never_cuts_a_number(analysis, width):
    from rich.console import Console

    grids = [tables.table1(analysis.study), tables.table2(analysis.results["slopes"])]
    for name in ("contrasts", "level_differences", "multipliers", "crossovers"):
        frame = analysis.results[name].head(20)
        grids.append(listing.listing(name, name, frame, listing.visible(frame)))
    for one in grids:
        console = Console(width=width, record=True, file=io.StringIO())
        for part in grid.terminal(one, width):
            console.print(part)
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        said = " ".join(lines)
        for row in one.rows:
            for column, cell in zip(one.columns, row.cells, strict=True):
                if column.numeric:
                    assert cell.whole in said, (one.name, column.label)
        flat = "".join("".join(lines).split())
        for note in one.notes:
            assert "".join(note.split()) in flat
        for text in {cell.text for row in one.rows for cell in row.cells if len(cell.text) > 28}:
            assert "".join(text.split()) in flat


def test_errors_over_shared_examples_are_not_for_comparing_cells(small, analysis):
    def notes(study):
        return " ".join(tables.table1(study).notes)

    assert tables.COMMON in notes(read_study(small))
    assert tables.COMMON not in notes(analysis.study)


@pytest.fixture(scope="module")
def paired(tmp_path_factory) -> tuple[everything.Analysis, dict[str, float]]:
    """Two models of one size on the same 400 examples, and the paired error of each quality.

    Hard examples are hard for both, so the error of each model is about 100 times as large. The
    examples of the last task were not kept.
    """
    count, tasks = 400, ("glue_cola", "glue_sst2", "python_questions")
    path = run_directories.write_study(
        tmp_path_factory.mktemp("paired"), ("glu", "transformer"), ("nano",), tasks=tasks
    )
    rng = np.random.default_rng(0)
    errors = {"upstream_nll": 0.03, tasks[0]: 0.6, tasks[1]: 0.8}
    parts = {key: (40 * rng.normal(size=count), rng.normal(size=count)) for key in errors}
    for run in path.iterdir():
        rows = records.read_jsonl(run / "evals.jsonl")
        for key, (hard, own) in parts.items():
            metric, task = ("nll", "corpus") if key == "upstream_nll" else ("score", key)
            value = [r["value"] for r in rows if (r["metric"], r["task"]) == (metric, task)][-1]
            each = value + (hard - hard.mean()) * errors[key]
            if run.name.startswith("glu"):
                own = own - own.mean()
                each += own / own.std(ddof=1) * np.sqrt(count) * errors[key]
            kept = [{"score": one} for one in each]
            if metric == "nll":
                size = {"weight": 10.0, "bytes": 10.0 * run_directories.BYTES_PER_TOKEN}
                kept = [{"nll": 10.0 * one, **size} for one in each]
            records.RunWriter(run).examples([{"task": task, "examples": kept}])
    known = {f"downstream_{k}" if k in tasks else k: v for k, v in errors.items()}
    known |= {"downstream_glue": np.hypot(0.6, 0.8) / 2, BITS_PER_BYTE: 0.4 * 0.03}
    return everything.analyse(read_study(path)), known


def test_the_errors_of_table1_are_those_of_differences_from_the_reference(paired):
    analysis, errors = paired
    table = by(tables.cells(analysis.study, analysis.paired_errors), "architecture")
    for column, error in errors.items():
        assert table["glu"][f"{column}_se_paired"] == pytest.approx(error)
        assert np.isnan(table["transformer"][f"{column}_se_paired"])
    shown = tables.table1(analysis.study, analysis.paired_errors)
    heads = [column.label for column in shown.columns]
    cells = {row.architecture: dict(zip(heads, row.cells, strict=True)) for row in shown.rows}
    details = {
        "Loss \u2193": "\u00b10.030",
        "Bits/byte \u2193": "\u00b10.012",
        "cola": "\u00b10.6",
        "sst2": "\u00b10.8",
        "GLUE": "\u00b10.5",
    }
    for head, said in details.items():
        assert cells["glu"][head].detail == said and cells["transformer"][head].detail == ""
    # Neither the last task nor the mean over all three has an error of the difference.
    for head in ("questions", "Mean \u2191"):
        assert cells["glu"][head].detail and cells["transformer"][head].detail
    notes = [note for note in shown.notes if note.startswith("\u00b1")]
    assert "difference from transformer at the same size" in notes[0]
    assert "noise between trainings" in notes[0] and tables.COMMON not in notes[0]
    assert tables.COMMON in notes[1] and "score on python questions" in notes[1]
    assert "cola" not in notes[1] and "GLUE" not in notes[1] and len(notes) == 2


def test_the_bars_of_the_figures_are_the_errors_of_table1(paired):
    analysis, errors = paired
    loss, score = analysis.qualities
    drawn = figures.means(analysis, analysis.table, loss).set_index("architecture").se
    assert drawn["glu"] == pytest.approx(errors["upstream_nll"]) and np.isnan(drawn["transformer"])
    assert figures.means(analysis, analysis.table, score).se.notna().all()  # shared by all cells
    said = figures.errors_in_words(analysis, ["upstream_nll"])
    assert "difference from transformer" in said and tables.COMMON not in said
    assert tables.COMMON in figures.errors_in_words(analysis)
    charts = chart_data.charts(analysis)
    assert charts["bars"]["upstream_nll"] == said
    chart = by(pd.DataFrame(charts["cells"]), "architecture")
    assert chart["glu"]["se"]["upstream_nll"] == pytest.approx(errors["upstream_nll"])


def test_listing_says_once_what_every_row_says():
    frame = pd.DataFrame(
        {
            "architecture": ["a", "b"],
            "p": [np.nan, np.nan],
            "on": [True, False],
            "note": ["same", "same"],
        }
    )
    made = listing.listing("x", "t", frame, "architecture p on note missing")
    assert [column.label for column in made.columns] == ["Architecture", "On"]
    assert made.notes == ("All rows: same.", "Not known in any row, hence not shown: p.")
    assert [cell.text for row in made.rows for cell in row.cells] == ["a", "yes", "b", "no"]
    assert listing.listing("x", "t", frame, "architecture", limit=1).notes == (
        "1 of 2 rows; all of them are in the CSV file.",
    )


def test_an_architecture_looks_the_same_everywhere():
    everywhere = style.looks(style.ZOO)
    for names in (["transformer", "glu"], ["mixer", "transformer", "elsewhere"]):
        for name, look in style.looks(names).items():
            if name in style.ZOO:
                assert look == everywhere[name]
    pairs = [
        (look.color, look.marker)
        for look in style.looks([*list(style.ZOO)[:6], "x", "y", "z"]).values()
    ]
    assert len(set(pairs)) == len(pairs) == 9
    crowd = style.looks([*style.ZOO, *(f"new{number}" for number in range(30))])
    assert len({(look.color, look.marker) for look in crowd.values()}) == len(crowd)
    assert len(style.looks(map(str, range(200)))) == 200  # more than there are pairs
    assert len({(look.color, look.marker) for look in style.ZOO.values()}) == len(style.ZOO)
    assert dataclasses.asdict(style.looks(["q"])["q"])["label"] == "q"

"""Writes a report: every table, figure and the page. The same records give the same bytes."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from eval.analyses.everything import Analysis, analyse
from eval.analyses.settings import DEFAULTS, Settings
from eval.data.neutral import csv
from eval.data.run_table import COLUMNS, RunColumns, for_directory, read_table
from eval.data.study import Study, read_study
from eval.report import figures, page, summary, tables
from eval.report.grid import Grid, latex, markdown
from train.records import InputError, replacing

_FIGURE = re.compile(
    r"(fig[1-5]|attainment|learning_curves|families|tuning|expected_best|probes|probe_curves|source_[a-z]+|law\d\d|law_[\w.-]+)\.(pdf|png)"
)
# The main tables are at the top of the report's directory, all others in the folder MORE.
_TOP = ("pareto", "crossovers", "rank_correlation", "protocols", "claims", "sources")
MORE = "analyses"
_HALF = re.compile(
    r".+\.(csv|md|tex|html|pdf|png)\.tmp-[0-9a-f]{12}"
)  # from `train.records.replacing`


def load(path: str | os.PathLike[str], columns: RunColumns = COLUMNS) -> Study:
    """Reads a study from a directory of runs, or from a table in a file.

    Raises:
      InputError: the path does not exist or cannot be read, or `columns` names a column although it
        is a directory.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"runs: {str(path)!r}: no such file or directory")
    return (
        read_study(path, for_directory(columns, path))
        if path.is_dir()
        else read_table(path, columns)
    )


def write(
    study: Study,
    out: str | os.PathLike[str],
    settings: Settings = DEFAULTS,
    progress: Callable[[str], None] = lambda name: None,
    scaling: Study | None = None,
) -> Analysis:
    """Writes runs.csv, the tables, analyses, figures and report.html into a directory.

    Args:
      study: the study to report on.
      out: the directory; it is created if necessary, and its other files are kept.
      settings: the settings of the analyses.
      progress: called with the name of each part before it is made.
      scaling: a study of slopes, which the scores of probes are related to.

    Raises:
      InputError: no run is finished, a setting does not fit the study, or the directory cannot be
        written.
    """
    out = Path(out)
    try:
        (out / MORE).mkdir(parents=True, exist_ok=True)
        _clear(out)
    except OSError as error:
        raise InputError(f"out: {str(out)!r} cannot be written ({error.strerror})") from None
    analysis = analyse(study, settings, progress, scaling)
    try:
        for name, text in texts(analysis):
            progress(name)
            with replacing(out / name) as file:
                file.write(text.encode("utf-8", "backslashreplace"))
        progress("figures")
        drawn = {out: figures.draw(analysis), out / MORE: figures.draw_more(analysis)}
        for directory, of_it in drawn.items():
            _remove_others(directory, of_it)
            figures.save(of_it, directory)
    except OSError as error:
        raise InputError(
            f"out: {error.filename or out}: cannot be written ({error.strerror})"
        ) from None
    return analysis


def _clear(out: Path) -> None:
    """Removes half-written files of a killed report; they all have temporary names."""
    for left in (*out.glob("*.tmp-*"), *(out / MORE).glob("*.tmp-*")):
        if _HALF.fullmatch(left.name):
            left.unlink(missing_ok=True)


def _remove_others(directory: Path, drawn: Iterable[str]) -> None:
    """Removes figures of an earlier report that this one does not draw; they show other runs."""
    for path in directory.iterdir():
        if _FIGURE.fullmatch(path.name) and path.stem not in drawn:
            path.unlink(missing_ok=True)


def texts(analysis: Analysis) -> Iterator[tuple[str, str]]:
    """Every text file of the report, as (path in the report's directory, content)."""
    study, results = analysis.study, analysis.results
    yield "runs.csv", csv(study.runs)
    yield "table1.csv", csv(tables.cells(study, analysis.paired_errors))
    yield from _shown(
        "table1", tables.table1(study, analysis.paired_errors, results.get("regrets"))
    )
    yield "table2_slopes.csv", csv(results["slopes"])
    yield from _shown(
        "table2_slopes",
        tables.table2(
            results["slopes"],
            analysis.settings.level,
            results["contrasts"],
            summary.no_scores(analysis),
        ),
        width=5,
        stacked=True,
    )
    yield "claims.md", markdown(tables.claims_grid(results["claims"]))
    yield "sources.md", markdown(tables.sources_grid(results["sources"]))
    for name in _TOP:
        yield f"{name}.csv", csv(results[name])
    for name, frame in results.items():
        if name not in (*_TOP, "slopes"):
            yield f"{MORE}/{name}.csv", csv(frame)
    for name in ("unfinished", "evals", "settings", "provenance"):
        yield f"{MORE}/{name}.csv", csv(getattr(study, name))
    yield f"{MORE}/learning_curves.csv", csv(analysis.curves)
    yield "report.html", page.render(analysis)


def _shown(name: str, grid: Grid, **options) -> Iterator[tuple[str, str]]:
    yield f"{name}.md", markdown(grid)
    yield f"{name}.tex", latex(grid, **options)

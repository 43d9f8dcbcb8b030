"""Writes what a study came to into the documentation: its time, figures, claims, capacities, rates.

    make study STUDY=data_size
    python -m benchmarks.study_page runs/data_size

docs/studies/NAME.md and its figures are made from the study's records alone.
"""

import argparse
import datetime
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib

from eval.analyses.everything import Analysis, analyse
from eval.data.study import Study, read_study
from eval.report import probe_report, source_figures, summary, sweep
from eval.report.figures import STYLE
from eval.report.grid import markdown
from eval.report.tables import capacity_grid, sources_grid
from eval.stats.decision import NOT_TESTED
from train.records import read_jsonl, replacing

OUT = Path(__file__).parents[1] / "docs" / "studies"
_DPI = 110


def main() -> None:
    """Writes the page of one study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="the study's directory")
    parser.add_argument("--with", dest="scaling", type=Path, help="a study of slopes, for probes")
    parser.add_argument("--out", type=Path, default=OUT, help="directory of the page")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    scaling = None if options.scaling is None else read_study(options.scaling)
    analysis = analyse(read_study(options.runs), scaling=scaling)
    page = "\n".join(_page(analysis, options.out))
    with replacing(options.out / f"{analysis.study.name}.md") as file:
        file.write(page.encode())


def _page(analysis: Analysis, out: Path) -> Iterator[str]:
    study = analysis.study
    yield f"# The study {study.name}\n"
    yield "Written by `python -m benchmarks.study_page` from the study's records.\n"
    yield f"    make study STUDY={study.name}\n"
    yield f"{_when(study)}\n"
    with matplotlib.rc_context({**STYLE, "savefig.dpi": _DPI}):
        figures = source_figures.draw(analysis) | sweep.both(analysis)
        for name, one in (figures | probe_report.figures(analysis)).items():
            picture = f"{study.name}_{name.removeprefix('source_')}.png"
            with replacing(out / picture) as file:
                one.figure.savefig(file, format="png", metadata={"Software": None})
            yield f"![{one.caption}]({picture})\n"
            yield f"{one.caption}\n"
    if analysis.sweep:
        yield from map(markdown, sweep.grids(analysis)[:3])
    if "capacity" in analysis.results:
        yield markdown(capacity_grid(analysis.results["capacity"]))
    if "probes" in analysis.results:
        yield f"{summary.of_probes(analysis)}\n"
        yield from map(markdown, probe_report.grids(analysis))
    claims = analysis.results["sources"]
    tested = claims[claims["verdict"] != NOT_TESTED]
    if len(tested):
        yield markdown(sources_grid(tested))


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """The seconds in which at least one of these spans was going on; a study may be interrupted."""
    seconds, until = 0.0, -math.inf
    for start, end in sorted(spans):
        seconds += max(end - max(start, until), 0.0)
        until = max(until, end)
    return seconds


def _when(study: Study) -> str:
    """How many runs, when, for how long, on what."""
    tries = [
        row
        for path in study.paths.values()
        for row in read_jsonl(path / "attempts.jsonl", {"started": float, "seconds": float})
    ]
    start = min(row["started"] for row in tries)
    minutes = busy((row["started"], row["started"] + row["seconds"]) for row in tries) / 60
    of_runs = sum(row["seconds"] for row in tries) / 60
    one = study.provenance.iloc[0]
    day = datetime.datetime.fromtimestamp(start, datetime.UTC).date()
    return (
        f"{len(study.runs)} runs in {minutes:.0f} minutes ({of_runs:.0f} minutes of runs, side by "
        f"side) on {day}, commit {str(one['commit'])[:7]}, {study.runs['device'].iloc[0]}."
    )


if __name__ == "__main__":
    main()

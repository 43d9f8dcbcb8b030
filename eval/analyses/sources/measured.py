"""What a study has measured of one architecture, in the form that the sources' claims need.

The claims are about one architecture trained with one recipe in many sizes, on much or little data.
`measured` splits a study by architecture and reads the evaluations during training once; `Measured`
finds the designs in it (a grid of sizes and data, shapes of equal size, several batch sizes) or
says in words what is missing.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from eval.data.cells import seed_averages
from eval.data.chance import at_chance
from eval.data.study import SHAPE_COLUMNS, Study, task_columns
from eval.stats.decision import Untestable

_SAME = 0.1  # runs whose tokens differ by less than this share have the same number of tokens
_LIMITED = 4.0  # unique tokens that vary by less than this factor are no axis of a design
_REPEATED = 1.5  # epochs from which a text counts as repeated
_LONGER = 1.25  # lengths of training that differ by less than this factor are no axis either
_LEVELS = 3  # the fewest values of an axis
_EVALUATIONS = 6  # the fewest evaluations of a run whose course is asked for
_RECIPE = ("batch_size", "weight_decay", "mixture")
# What the records call the measures that claims are about: (task, split, metric).
_MEASURES = {
    "heldout": ("corpus", "validation", "nll"),
    "seen": ("memorisation", "train", "seen_nll"),
    "anisotropy": ("representation", "validation", "anisotropy"),
    "entropy": ("representation", "validation", "singular_entropy"),
    "rank": ("representation", "validation", "effective_rank"),
}


@dataclasses.dataclass(frozen=True)
class DataGrid:
    """Cells of several sizes and amounts of data, averaged over their seeds.

    Attributes:
      cells: one row per cell: size, level (of the data), N (parameters outside the embedding), P
        (all parameters), D (tokens), C (training FLOPs), best, last (held-out losses), best_step,
        seen (last loss on seen text), and for each the number of runs `_n`.
      limited: whether D counts different tokens, of which a run may read each many times; else D
        counts tokens read.
      noise: the variance between the seeds of a cell of the last, the best and the seen loss, each
        with its degrees of freedom; NaN and 0 if every cell has one seed.
    """

    cells: pd.DataFrame
    limited: bool
    noise: dict[str, tuple[float, int]]

    @property
    def loss(self) -> str:
        """The loss that a law describes: with limited data that of a model stopped in time."""
        return "best" if self.limited else "last"

    @property
    def levels(self) -> list[int]:
        """The amounts of data, from little to much."""
        return sorted(self.cells["level"].unique())

    def at(self, level: int) -> pd.DataFrame:
        """The cells of one amount of data, from small to large models."""
        return self.cells[self.cells["level"] == level].sort_values("N")


@dataclasses.dataclass(frozen=True)
class Measured:
    """The runs of one architecture.

    Attributes:
      name: the architecture.
      runs: one row per run, with columns run_id, size, protocol, seed, N, P, T (tokens read), U
        (different tokens read), C, steps, last, best, best_step, seen, layers, width, mlp_dim,
        num_heads, batch_size, weight_decay, learning_rate, decay_steps, mixture, and the scores of
        tasks, NaN where they are at chance.
      histories: one row per run and evaluation: run_id, step, tokens, and a column for each measure
        of _MEASURES, NaN where it was not taken.
      finished: what was measured of finished runs, as rows of `eval.data.study.MEASURE_COLUMNS`.
      level: confidence level of intervals; tests are at 1 - level.
      seed: of random draws.
    """

    name: str
    runs: pd.DataFrame
    histories: pd.DataFrame
    finished: pd.DataFrame
    level: float = 0.95
    seed: int = 0

    @functools.cached_property
    def usual(self) -> pd.DataFrame:
        """The runs with the most frequent batch size, weight decay and mixture of text."""
        recipe = self.runs[list(_RECIPE)].astype(object).fillna("")
        count = recipe.groupby(list(_RECIPE))[_RECIPE[0]].transform("size")
        return self.runs[(recipe == recipe.iloc[int(count.to_numpy().argmax())]).all(axis=1)]

    @functools.cached_property
    def cells(self) -> pd.DataFrame:
        """The cells of `usual` by size and number of tokens read."""
        return self._averaged("T")

    @functools.cached_property
    def limited(self) -> DataGrid:
        """The grid of sizes and numbers of different tokens.

        Raises:
          Untestable: there is none.
        """
        if self._is_limited:
            cells = self._averaged("U")
            if self._crossed(cells):
                return self._grid(cells, "U")
        raise Untestable(
            f"no {_LEVELS} sizes with {_LEVELS} amounts of text that was repeated, the largest "
            f"{_LIMITED:g} times the smallest or more"
        )

    @functools.cached_property
    def _is_limited(self) -> bool:
        """Whether the amount of different text is an axis of the design.

        Short runs read less of their text than long ones, too, but do not repeat it.
        """
        runs = self.usual.dropna(subset=["U", "T"])
        if not len(runs) or _factor(runs["U"]) < _LIMITED:
            return False
        level = same(runs["U"].to_numpy())
        epochs = (runs["T"] / runs["U"])[level < level.max()]
        return bool(epochs.median() >= _REPEATED)

    @functools.cached_property
    def grid(self) -> DataGrid:
        """The grid of sizes and data; of tokens read where the different ones are not limited.

        Raises:
          Untestable: there is none.
        """
        try:
            return self.limited
        except Untestable:
            return self.lengths

    @functools.cached_property
    def lengths(self) -> DataGrid:
        """The grid of sizes and tokens read, whose text was not limited.

        Not every size needs the same lengths, as in a study of budgets.

        Raises:
          Untestable: there is none.
        """
        cells = self.cells
        varied = cells.groupby("size")["D"].agg(_factor) >= _LONGER
        cells = cells[cells["size"].isin(varied[varied].index)]
        if (
            self._is_limited
            or cells["size"].nunique() < _LEVELS
            or cells["level"].nunique() < _LEVELS
        ):
            raise Untestable(f"no {_LEVELS} sizes that were each trained for several lengths")
        return self._grid(cells, "T")

    def course(self, *measures: str) -> dict[str, pd.DataFrame]:
        """How runs went: by run id, their evaluations with all these measures, in order.

        Without those of a decay of the rate at the end (`decay_steps`), which changes the loss by
        itself.

        Raises:
          Untestable: no run has enough of them.
        """
        lacking = [m for m in measures if not self.histories[m].notna().any()]
        if lacking:
            needed = " and ".join(_MEASURES[m][2] for m in lacking)
            raise Untestable(f"no run has recorded {needed} during training")
        rows = self.histories.dropna(subset=list(measures))
        runs = self.runs.set_index("run_id")
        stop = (runs["steps"] - runs["decay_steps"].fillna(0.0)).astype(float)
        rows = rows[rows["step"] <= rows["run_id"].map(stop)]
        found = {str(run): part for run, part in rows.groupby("run_id", sort=True)}
        found = {run: part for run, part in found.items() if len(part) >= _EVALUATIONS}
        if not found:
            raise Untestable(f"no run was evaluated {_EVALUATIONS} times during training")
        return found

    def by_rank(self, measure: str) -> pd.DataFrame:
        """A measure of finished runs that depends on a rank: run_id, width, rank, value.

        Raises:
          Untestable: no run has it.
        """
        rows = self.finished[self.finished["measure"] == measure].dropna(subset=["rank", "value"])
        widths = self.runs.dropna(subset=["width"]).set_index("run_id")["width"]
        rows = rows[rows["run_id"].isin(widths.index)]
        if rows.empty:
            raise Untestable(f"no run has a measured {measure}")
        return rows.assign(width=rows["run_id"].map(widths))[["run_id", "width", "rank", "value"]]

    def _averaged(self, data: str) -> pd.DataFrame:
        """The cells of the usual runs by size and level of the data, averaged over seeds."""
        needed = self.usual[["N", "P", data, "last", "best"]].astype(float)
        # A law is fitted to logarithms.
        runs = self.usual[(np.isfinite(needed) & (needed > 0)).all(axis=1)]
        runs = runs.assign(level=same(runs[data].to_numpy()), D=runs[data])
        columns = ["N", "P", "D", "C", "last", "best", "best_step", "seen", "steps"]
        cells = seed_averages(runs, columns, ["size", "level"])
        return cells.reset_index().sort_values(["level", "N"], ignore_index=True)

    @staticmethod
    def _crossed(cells: pd.DataFrame) -> bool:
        """Whether enough sizes have enough levels each."""
        return bool((cells.groupby("size")["level"].nunique() >= _LEVELS).sum() >= _LEVELS)

    def _grid(self, cells: pd.DataFrame, data: str) -> DataGrid:
        runs = self.usual.assign(level=same(self.usual[data].to_numpy()))
        runs = runs[runs["size"].isin(cells["size"])]
        noise = {c: seed_noise(runs, ["size", "level"], c) for c in ("last", "best", "seen")}
        return DataGrid(cells, data == "U", noise)


def seed_noise(runs: pd.DataFrame, by: list[str], column: str) -> tuple[float, int]:
    """The variance between the seeds of a cell, and its degrees of freedom; NaN and 0 without."""
    known = runs.dropna(subset=column).groupby(by)[column]
    spare = int((known.size() - 1).sum())
    squares = float((known.var(ddof=0) * known.size()).sum())
    return squares / spare if spare else np.nan, spare


def same(values: np.ndarray) -> np.ndarray:
    """Numbers the levels of positive values, from low to high; those almost equal share one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(np.asarray(values, float))
    order = np.argsort(logs)
    steps = np.diff(logs[order], prepend=logs[order][:1]) > _SAME
    level = np.empty(len(logs), int)
    level[order] = np.cumsum(steps)
    return level


def _factor(values: pd.Series) -> float:
    """The largest over the smallest."""
    known = values[values > 0]
    return float(known.max() / known.min()) if len(known) else 1.0


def measured(study: Study, level: float = 0.95, seed: int = 0) -> list[Measured]:
    """What a study has measured of each of its architectures, in order of their names.

    Args:
      study: from `eval.data.study.read_study`, or of a table.
      level: confidence level of the intervals.
      seed: of random draws.
    """
    study = study.told_apart()
    histories = _histories(study)
    runs = _runs(study, histories)
    of = lambda table, part: table[table["run_id"].isin(part["run_id"])]
    return [
        Measured(str(name), part, of(histories, part), of(study.measures, part), level, seed)
        for name, part in runs.groupby("architecture", sort=True)
    ]


def _histories(study: Study) -> pd.DataFrame:
    """One row per run and evaluation, see `Measured.histories`."""
    rows = study.histories
    named = {key: measure for measure, key in _MEASURES.items()}
    keys = zip(rows["task"], rows["split"], rows["metric"], strict=True)
    measure = np.array([named.get(key, "") for key in keys], object)
    rows = rows.assign(measure=measure)[measure != ""]
    rows = rows.drop_duplicates(["run_id", "step", "measure"], keep="last")
    table = rows.pivot(index=["run_id", "step"], columns="measure", values="value")
    table = table.reindex(columns=list(_MEASURES)).astype(float).sort_index().reset_index()
    every = study.runs.set_index("run_id")
    tokens = table["run_id"].map(every["tokens_seen"] / every["steps"]).to_numpy(float)
    return table.assign(tokens=table["step"].to_numpy(float) * tokens)


def _runs(study: Study, histories: pd.DataFrame) -> pd.DataFrame:
    """One row per run, see `Measured.runs`."""
    names = {
        "params_non_embedding": "N",
        "params_total": "P",
        "tokens_seen": "T",
        "unique_tokens": "U",
        "flops_train_total": "C",
        "upstream_nll": "last",
        "num_layers": "layers",
        "embed_dim": "width",
    }
    runs = study.runs
    for more in (study.shapes.reindex(columns=list(SHAPE_COLUMNS)), study.recipes):
        runs = runs.merge(more, on="run_id", how="left", validate="one_to_one")
    runs = runs.rename(columns=names)
    known = histories.dropna(subset="heldout")
    lowest = known.loc[known.groupby("run_id")["heldout"].idxmin()].set_index("run_id")
    seen = histories.dropna(subset="seen").drop_duplicates("run_id", keep="last")
    at = runs["run_id"]
    guessed = {
        column: runs[column].mask(at.isin(study.runs.run_id[at_chance(study, column)]))
        for column in task_columns(study.runs)
    }
    return runs.assign(
        **guessed,
        best=at.map(lowest["heldout"]).fillna(runs["last"]).astype(float),
        best_step=at.map(lowest["step"]).fillna(runs["steps"]).astype(float),
        seen=at.map(seen.set_index("run_id")["seen"]).astype(float),
    )


def rows_of(runs: pd.DataFrame, run_ids: Sequence[str]) -> pd.DataFrame:
    """The rows of these runs, in their order."""
    return runs.set_index("run_id").loc[list(run_ids)].reset_index()

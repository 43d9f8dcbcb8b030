"""What architectures can learn: their scores on probes, and whether these predict how they scale.

A probe is a small task (`train.probes`). Each architecture counts at its own best learning rate,
which is chosen on the validation set; the scores are those of the test set.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.comparison import Comparison
from eval.analyses.question import Question
from eval.analyses.slopes import Slopes
from eval.data.cells import RunTable
from eval.data.study import Study
from eval.stats.decision import holm

_KEYS = ["architecture", "size", "probe"]
_FEWEST = 6  # architectures; with fewer there is no interval of a rank correlation
_EXACT = 8  # architectures; of more, not all orders are tried
_ORDERS = 20_000
MEAN = "mean rank"
"""The name under which the mean of the ranks on all probes is related to slopes and levels."""


@dataclasses.dataclass(frozen=True)
class Probes:
    """The probes of a study.

    Attributes:
      study: runs that were trained on probes; others are left out.
      level: of the intervals.
    """

    study: Study
    level: float = 0.95

    def runs(self) -> pd.DataFrame:
        """Every run on a probe.

        Returns:
          Columns run_id, architecture, size, probe (with its settings), task, learning_rate, seed,
          state_size, validation, score (accuracies in percent, of the last evaluation), chance,
          seen (test examples that are also in the training set) and examples (of the test).
        """
        runs = self.study.runs.merge(self.study.recipes, on="run_id")
        runs = runs[runs["probe"] != ""]
        evals = self.study.evals[self.study.evals["run_id"].isin(runs["run_id"])]
        found = {
            "validation": _value(evals, "validation", "accuracy"),
            "score": _value(evals, "test", "accuracy"),
            "chance": _value(evals, "test", "chance"),
            "seen": _value(evals, "test", "seen"),
            "examples": _value(evals, "test", "seen", "n"),
        }
        for name, values in found.items():
            runs[name] = runs["run_id"].map(values).astype(float)
        columns = ["run_id", *_KEYS, "learning_rate", "seed", "state_size", *found]
        runs = runs[columns].dropna(subset=["score"])
        return runs.sort_values([*_KEYS, "learning_rate", "seed"]).reset_index(drop=True)

    def chosen(self) -> pd.DataFrame:
        """The runs at the rate with the highest mean accuracy on the validation set.

        Returns:
          The columns of `runs`, rates (how many were tried) and at_edge (whether the chosen one is
          the lowest or the highest of several).
        """
        runs = self.runs()
        parts = []
        for _, own in runs.groupby(_KEYS, sort=False):
            means = own.groupby("learning_rate")["validation"].mean()
            best = means.idxmax()
            edge = len(means) > 1 and best in (means.index.min(), means.index.max())
            part = own[own["learning_rate"] == best]
            parts.append(part.assign(rates=len(means), at_edge=edge))
        return pd.concat(parts, ignore_index=True) if parts else runs.assign(rates=0, at_edge=False)

    def table(self) -> pd.DataFrame:
        """The score of every architecture on every probe.

        Returns:
          Rows by probe, then by score, the highest first, with columns probe, architecture, size,
          score (the mean over seeds), ci_low, ci_high (Student's, cut off at 0 and 100; NaN with
          one seed), seeds, learning_rate, at_edge, rates, chance, state_size, seen and examples.
        """
        rows = []
        for (architecture, size, probe), own in self.chosen().groupby(_KEYS):
            low, high = _interval(own["score"].to_numpy(), self.level)
            one = own.iloc[0]
            kept = ["learning_rate", "at_edge", "rates", "chance", "state_size", "seen", "examples"]
            rows.append(
                {
                    **{"probe": probe, "architecture": architecture, "size": size},
                    **{"score": own["score"].mean(), "ci_low": low, "ci_high": high},
                    **{"seeds": len(own), **one[kept].to_dict()},
                }
            )
        columns = [
            *("probe", "architecture", "size", "score", "ci_low", "ci_high", "seeds"),
            *("learning_rate", "at_edge", "rates", "chance", "state_size", "seen", "examples"),
        ]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values(
            ["probe", "score", "architecture"], ascending=[True, False, True]
        ).reset_index(drop=True)

    def by_task(self) -> pd.DataFrame:
        """The mean score over the settings of each task that has several.

        Every setting counts at its own best rate, and with the same weight. A seed's mean is over
        the settings, so the interval is that between seeds.

        Returns:
          Columns task, architecture, size, settings (how many), score, ci_low, ci_high and seeds.
          Architectures that lack one of a task's settings are left out.
        """
        chosen = self.chosen()
        chosen = chosen.assign(task=chosen["probe"].str.split(", ").str[0])
        settings = chosen.groupby("task")["probe"].nunique()
        rows = []
        keys = ["task", "architecture", "size"]
        for (task, architecture, size), own in chosen.groupby(keys):
            count = int(settings.loc[str(task)])
            means = own.pivot_table(index="seed", columns="probe", values="score").dropna()
            if count > 1 and means.shape[1] == count and len(means):
                values = means.mean(axis=1).to_numpy()
                ends = _interval(values, self.level)
                about = (task, architecture, size, count)
                rows.append((*about, values.mean(), *ends, len(values)))
        columns = [*keys, "settings", "score", "ci_low", "ci_high", "seeds"]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values(["task", "score"], ascending=[True, False]).reset_index(drop=True)

    def curves(self) -> pd.DataFrame:
        """How the score depends on the size of an example, and on the settings of a probe.

        Returns:
          Columns task (the probe without the setting that differs), x_name (`size`, or the name of
          the setting), x, architecture, size, score, ci_low and ci_high.
        """
        chosen = self.chosen()
        rows = [*self._by_size(chosen), *self._by_setting(chosen)]
        columns = ["task", "x_name", "x", "architecture", "size", "score", "ci_low", "ci_high"]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values(["task", "x_name", "architecture", "x"]).reset_index(drop=True)

    def relation(self, other: RunTable, question: Question) -> pd.DataFrame:
        """Do the scores order architectures as another study's slopes and losses do?

        Args:
          other: runs of a study of scaling, with architectures of the same names.
          question: about their loss on FLOPs.

        Returns:
          A row for each probe, and for the mean of the ranks on all, with the slope and with the
          level (the loss in the middle of the common range): columns probe, measure (`slope` or
          `level`), architectures (in both studies), spearman (positive: a higher score goes with a
          better slope or level), ci_low, ci_high (of other architectures like these; NaN with fewer
          than six), p (the share of orders with as large a correlation: all orders of up to eight
          architectures, else 20,000 random ones), p_holm (over all rows), and note.
        """
        scores = self.table().pivot_table(index="architecture", columns="probe", values="score")
        # Probes have different scales, so the mean is that of their ranks.
        scores[MEAN] = scores.rank().mean(axis=1, skipna=False)
        measures = _scaling(other, question)
        rows = []
        for probe in scores:
            for measure, values in measures.items():
                both = pd.concat([scores[probe], values], axis=1, join="inner").dropna()
                found = _rank(both, self.level, question.seed)
                rows.append({"probe": probe, "measure": measure, **found})
        table = pd.DataFrame(rows)
        if len(table):
            table["p_holm"] = holm(table["p"].to_numpy(float))
        return table

    def _by_size(self, chosen: pd.DataFrame) -> list[dict]:
        evals = self.study.evals
        named = evals["metric"].str.fullmatch(r"accuracy_\d+") & (evals["split"] == "test")
        every = evals[named].assign(x=lambda rows: rows["metric"].str.split("_").str[1].astype(int))
        joined = every[["run_id", "x", "value"]].merge(chosen, on="run_id")
        return [
            {"task": probe, "x_name": "size", "x": x, **self._point(own, "value")}
            for (probe, _, _, x), own in joined.groupby(["probe", "architecture", "size", "x"])
        ]

    def _by_setting(self, chosen: pd.DataFrame) -> list[dict]:
        """Probes of one task of which a single setting that is a number has several values."""
        rows = []
        settings = {probe: _parts(probe) for probe in chosen["probe"].unique()}
        for task in sorted({name for name, _ in settings.values()}):
            own = {probe: parts for probe, (name, parts) in settings.items() if name == task}
            keys = sorted(set().union(*own.values()))
            varied = [k for k in keys if len({parts.get(k) for parts in own.values()}) > 1]
            numeric = [k for k in varied if all(k in parts for parts in own.values())]
            if not numeric:
                continue
            key = numeric[0]  # of settings that vary together, such as pairs and row, one is enough
            for (probe, _, _), part in chosen[chosen["probe"].isin(own)].groupby(
                ["probe", "architecture", "size"]
            ):
                x = own[str(probe)][key]
                rows.append({"task": task, "x_name": key, "x": x, **self._point(part, "score")})
        return rows

    def _point(self, own: pd.DataFrame, column: str) -> dict:
        low, high = _interval(own[column].to_numpy(), self.level)
        one = own.iloc[0]
        about = {"architecture": one["architecture"], "size": one["size"]}
        return {**about, "score": own[column].mean(), "ci_low": low, "ci_high": high}


def _value(evals: pd.DataFrame, split: str, metric: str, column: str = "value") -> pd.Series:
    rows = evals[(evals["split"] == split) & (evals["metric"] == metric)]
    return rows.drop_duplicates("run_id", keep="last").set_index("run_id")[column]


def short_names(probes: Iterable[str]) -> dict[str, str]:
    """Each probe by its task and those settings in which it differs from others of the task."""
    parts = {probe: probe.split(", ") for probe in probes}
    found = {}
    for probe, (task, *settings) in parts.items():
        alike = [set(other[1:]) for other in parts.values() if other[0] == task]
        own = [one for one in settings if not all(one in other for other in alike)]
        found[probe] = ", ".join([task, *own])
    return found


def _parts(probe: str) -> tuple[str, dict[str, float]]:
    """The name of a probe, and those of its settings that are numbers."""
    name, *settings = probe.split(", ")
    found = (re.fullmatch(r"(\w+) ([\d.e+-]+)", setting) for setting in settings)
    return name, {match[1]: float(match[2]) for match in found if match}


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Student's interval for the mean of percentages."""
    if len(values) < 2:
        return np.nan, np.nan
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * error
    return float(max(values.mean() - half, 0)), float(min(values.mean() + half, 100))


def _scaling(other: RunTable, question: Question) -> dict[str, pd.Series]:
    """How well each architecture scales, higher is better: its slope, and minus its loss."""
    question = question.ask(link="semilog")
    slopes = Slopes(other, question).table(("FU",), ("semilog",)).set_index("architecture")
    sign = np.where(slopes["higher_is_better"], 1, -1)
    levels = Comparison(other, question).levels()
    middle = levels[levels["position"] == "middle"].set_index("architecture")
    level = middle["difference"] * np.where(middle["higher_is_better"], 1, -1)
    reference = pd.Series({str(levels["reference"].iloc[0]): 0.0}) if len(levels) else pd.Series()
    return {"slope": slopes["slope"] * sign, "level": pd.concat([reference, level])}


def _rank(both: pd.DataFrame, level: float, seed: int) -> dict:
    """The rank correlation of two columns, with an interval and a test."""
    x, y = both.to_numpy(float).T
    n = len(x)
    found = {"architectures": n, "spearman": np.nan, "ci_low": np.nan, "ci_high": np.nan}
    found |= {"p": np.nan, "note": ""}
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        short = f"{n} architectures: no correlation"
        return found | {"note": short if n < 3 else "all values are equal"}
    x, y = (_standard(stats.rankdata(values)) for values in (x, y))
    found["spearman"] = value = float(x @ y / n)
    permuted = _orders(y, seed) @ x / n
    found["p"] = float(np.mean(np.abs(permuted) >= abs(value) - 1e-9))
    if n < _FEWEST:
        return found | {"note": f"{n} architectures: not enough for an interval"}
    found["ci_low"], found["ci_high"] = spearman_interval(found["spearman"], n, level)
    return found


def _standard(values: np.ndarray) -> np.ndarray:
    """With mean 0 and variance 1."""
    return (values - values.mean()) / values.std()


def _orders(values: np.ndarray, seed: int) -> np.ndarray:
    """The values in every order, or in random ones of which one is the order given, [P, n]."""
    if len(values) <= _EXACT:
        return np.array(list(itertools.permutations(values)))
    drawn = np.tile(values, (_ORDERS, 1))
    drawn[1:] = np.random.default_rng(seed).permuted(drawn[1:], axis=1)
    return drawn


def spearman_interval(value: float, n: int, level: float) -> tuple[float, float]:
    """The interval of Bonett and Wright (2000) for Spearman's correlation of n pairs.

    On Fisher's scale, with the variance (1 + r^2 / 2) / (n - 3). NaN at a correlation of 1 or -1.
    """
    if abs(value) >= 1 - 1e-9:
        return np.nan, np.nan
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt((1 + value**2 / 2) / (n - 3))
    middle = np.arctanh(value)
    return float(np.tanh(middle - half)), float(np.tanh(middle + half))

"""The runs of a sweep, from a study's directory or a table, and the file of the best rates."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eval.analyses import tuning
from eval.analyses.tuning import ALL, Curve, Regret, curves, exponents
from eval.data import naming
from eval.data.cells import DEFAULT_PROTOCOLS
from eval.data.families import without_family
from eval.data.neutral import finite
from eval.data.study import Study, read_study
from eval.data.table import Table
from train.records import InputError, read_json, replacing

SETTING = "pretrain.optimizer.learning_rate"
_CELL = ["architecture", "size", "protocol", "tokens"]
_NEEDED = ("run_id", "family", *_CELL, "params", "rate", "seed", "loss")
_ALIKE = ("batch_size", "weight_decay", "decay_steps", "mixture", "probe")
_SWEPT = re.compile(r"-?learning_rate[0-9.]+(e[+-]?\d+)?")  # in a protocol of `declare.sweep`
_FEW = 3  # rates that make a curve
AT_BEST = (
    "The learning rate was swept. Every cell is shown at the rate of its lowest mean loss; that "
    "loss is a little low by chance. The other rates are protocols of their own."
)


@dataclasses.dataclass(frozen=True)
class SweepColumns:
    """The meaning of the columns of a table of a sweep, with one row per run.

    Attributes:
      columns: a TOML file that names columns by option; the command line comes first.
      architecture: column with the architecture's name.
      size: column with the size's label.
      protocol: column with what else the cells of one size differ in, such as the optimizer.
      tokens: column with the tokens of pretraining.
      params: column with the parameters outside the embedding.
      rate: column with the learning rate, or another setting above 0 that was swept.
      seed: column with the seed.
      loss: column with the loss in nats.
      where: keep only the rows where these columns have these values: `steps=1000`; of a study's
        directory, the runs that meet these conditions.
    """

    columns: Path | None = None
    architecture: str = "architecture"
    size: str = "size"
    protocol: str = "protocol"
    tokens: str = "tokens_seen"
    params: str = "params_non_embedding"
    rate: str = "learning_rate"
    seed: str = "seed"
    loss: str = "upstream_nll"
    where: tuple[str, ...] = ()


def of_study(study: Study) -> pd.DataFrame:
    """The runs of a study that vary the learning rate, as rows of `eval.analyses.tuning.curves`.

    A cell is an architecture at a size, under a protocol and for so many tokens. Of each cell those
    are taken that differ in the rate and the seed alone: with one batch size, weight decay, decay
    and mixture, of which most rates were tried.

    Raises:
      InputError: a run has no recorded learning rate.
    """
    runs = study.told_apart().runs.merge(study.recipes, on="run_id", validate="one_to_one")
    names = {
        "params_non_embedding": "params",
        "learning_rate": "rate",
        "upstream_nll": "loss",
        "tokens_seen": "tokens",
    }
    runs = runs.rename(columns=names)
    plain = runs["protocol"].fillna("").astype(str).str.replace(_SWEPT, "", regex=True)
    runs = runs.assign(protocol=plain, tokens=runs["tokens"].astype(float).fillna(0.0))
    lacking = runs[runs["rate"].isna()]
    if len(lacking):
        raise InputError(f"run {lacking['run_id'].iloc[0]}: no learning rate is recorded")
    alike = runs.groupby([*_CELL, *_ALIKE], dropna=False, sort=False)
    rates = alike["rate"].transform("nunique")
    runs = runs.assign(group=alike.ngroup(), rates=rates)
    best = runs.sort_values("rates", kind="stable").groupby(_CELL, sort=False)["group"].last()
    runs = runs.join(best.rename("best"), on=_CELL)
    runs = runs.assign(tokens=runs["tokens"].replace(0.0, math.nan))
    return runs.loc[runs["group"] == runs["best"], list(_NEEDED)].astype(
        {"params": float, "rate": float, "loss": float}
    )


def curves_of(study: Study, level: float) -> list[Curve]:
    """The curves of the cells of a study that were trained at three rates or more."""
    return curves(swept(study), level)


def swept(study: Study) -> pd.DataFrame:
    """The runs of the cells of a study that were trained at three rates or more."""
    if study.recipes["learning_rate"].isna().any():
        return pd.DataFrame(columns=list(_NEEDED))
    runs = of_study(study)
    several = runs.groupby(_CELL, dropna=False)["rate"].transform("nunique") >= _FEW
    once = ~runs.duplicated([*_CELL, "rate", "seed"], keep=False)
    return runs[several & once & runs["loss"].notna()]


def at_best(study: Study) -> Study:
    """A sweep's study with every cell at its own best rate, so that analyses compare these.

    The runs at the rate of the lowest mean loss lose the rate from their protocol. A study with
    plain runs, or without a sweep, stays as it is.
    """
    if study.runs["protocol"].isin(DEFAULT_PROTOCOLS).any():
        return study
    runs = swept(study)
    if runs.empty:
        return study
    lowest = tuning.at_best(runs).rename(columns={"rate": "best"})[[*_CELL, "best"]]
    # A merge would not find cells whose tokens are unknown, NaN.
    keyed = [frame.fillna({"tokens": 0.0}) for frame in (runs, lowest)]
    best = keyed[0].merge(keyed[1], on=_CELL)
    plain = best[best["rate"] == best["best"]].set_index("run_id")["protocol"]
    protocol = study.runs["run_id"].map(plain).fillna(study.runs["protocol"])
    return dataclasses.replace(
        study,
        runs=study.runs.assign(protocol=protocol),
        warnings=(*study.warnings, AT_BEST),
    )


def of_directory(path: Path, where: tuple[str, ...] = ()) -> pd.DataFrame:
    """The runs of a study's directory."""
    return of_study(read_study(path, where))


def of_table(
    path: Path,
    columns: SweepColumns = SweepColumns(),
    say: Callable[[str], None] = lambda warning: None,
) -> pd.DataFrame:
    """The runs of a table.

    Args:
      path: of the table.
      columns: the meaning of its columns; usual names of others are found.
      say: called with each warning, such as what a column was taken for.

    Raises:
      InputError: the file or a column is missing or malformed, or a rate is not above 0.
    """
    columns = naming.from_file(columns)
    table = Table.read(path, columns.where)
    columns, said = naming.guessed(columns, table, naming.USUAL_OF_SWEEPS)
    table, left_out = naming.ended(table, naming.column_of(table, naming.USUAL["run_id"]))
    for line in (*said, *left_out):
        say(line)
    for option in ("architecture", "size", "rate", "seed", "loss"):
        table.require(getattr(columns, option), option)
    rate, loss = table.numbers(columns.rate), table.numbers(columns.loss)
    for row in rate.index[~(rate > 0) | (rate == math.inf)]:
        table.refuse(row, columns.rate, "is not above 0" if rate[row] <= 0 else "")

    def numbers(column: str) -> Any:
        return table.numbers(column) if column in table else math.nan

    return pd.DataFrame(
        {
            "architecture": table.texts(columns.architecture),
            "size": table.texts(columns.size),
            "protocol": table.texts(columns.protocol) if columns.protocol in table else "",
            "tokens": numbers(columns.tokens),
            "params": numbers(columns.params),
            "rate": rate,
            "seed": table.wholes(columns.seed),
            "loss": loss,
        }
    )


def write(found: Sequence[Curve], source: str, path: Path) -> None:
    """Writes a sweep's losses, best rates and exponents into a JSON file.

    `read` and `train.study.declare.tuned` read it. The exponents of an architecture with fewer than
    three best rates are those of all architectures together.

    Args:
      found: from `eval.analyses.tuning.curves`.
      source: where the sweep is, such as its directory.
      path: the file.
    """
    slopes = exponents(found).set_index(["architecture", "protocol"])
    shared = (ALL, "") if (ALL, "") in slopes.index else None
    cells = [
        dataclasses.asdict(curve)
        | {
            "architecture": without_family(curve.architecture),
            "best_rate": curve.best,
            "interval": curve.interval(),
            **_exponents(slopes, (curve.architecture, curve.protocol), shared),
        }
        for curve in found
    ]
    content = finite({"setting": SETTING, "sweep": source, "cells": cells})
    with replacing(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def _exponents(
    table: pd.DataFrame, group: tuple[str, str], shared: tuple[str, str] | None
) -> dict[str, float]:
    """Those of a group if it has three best rates, and otherwise those of all groups."""
    own: Any = table.loc[[group]].iloc[0]
    if own["rates"] < _FEW and shared:
        own = table.loc[[shared]].iloc[0]
    return {name: float(own[name]) for name in ("exponent", "tokens_exponent")}


def read(path: Path) -> list[Curve]:
    """The curves in a file from `write`.

    Raises:
      InputError: the file cannot be read, or was not written by `write`.
    """
    names = [field.name for field in dataclasses.fields(Curve)]
    found = []
    for i, cell in enumerate(read_json(path).get("cells") or [None]):
        if not isinstance(cell, dict) or not set(names) <= set(cell):
            raise InputError(f"{path}: cells[{i}]: not a file of `eval tune --out`")
        values: dict[str, Any] = {n: math.nan if cell[n] is None else cell[n] for n in names}
        for name in ("rates", "losses", "left_out"):
            numbers = values[name]
            if not (isinstance(numbers, list) and all(_is_number(x) for x in numbers)):
                raise InputError(f"{path}: cells[{i}]: {name} = {numbers!r} are not numbers")
            values[name] = tuple(numbers)
        for name in ("params", "tokens", "seeds", "noise", "df", "level"):
            if not _is_number(values[name]):
                raise InputError(f"{path}: cells[{i}]: {name} = {values[name]!r} is not a number")
        found.append(Curve(**values))
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def used(study: Study, found: Sequence[Curve]) -> pd.DataFrame:
    """The regret of the rate that each cell of a study was trained with.

    Returns:
      Columns architecture, size, protocol, rate, regret, ci_low, ci_high (nats), note; one row per
      cell. NaN where the sweep does not have the cell, or its runs have several rates.
    """
    runs = study.told_apart().runs.merge(study.recipes, on="run_id", validate="one_to_one")
    of_cell = {(c.architecture, c.family, c.size, c.protocol): c for c in found}
    rows = []
    for cell, part in runs.groupby(["architecture", "size", "protocol"], sort=False):
        architecture, size, protocol = map(str, cell)
        family = str(part["family"].iloc[0])
        keys = [
            (without_family(architecture), f, size, p) for p in (protocol, "") for f in (family, "")
        ]
        curve = next((of_cell[key] for key in keys if key in of_cell), None)
        rates = part["learning_rate"].unique()
        if curve is None:
            regret, rate = Regret(note="the sweep does not have this cell"), math.nan
        elif len(rates) > 1 or not rates[0] > 0:
            regret, rate = Regret(note="its runs have no single recorded rate"), math.nan
        else:
            rate = float(rates[0])
            regret = curve.regret(rate)
        rows.append((architecture, size, protocol, rate, *dataclasses.astuple(regret)))
    columns = ["architecture", "size", "protocol", "rate", "regret", "ci_low", "ci_high", "note"]
    return pd.DataFrame(rows, columns=columns)

"""The runs of a sweep, from a study's directory or a table, and the file of the best rates."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eval.analyses.tuning import Curve, exponents
from eval.data.families import without_family
from eval.data.study import Study, read_study
from eval.data.table import Table
from train.records import InputError, replacing

SETTING = "pretrain.optimizer.learning_rate"
_NEEDED = ("architecture", "family", "size", "params", "rate", "seed", "loss")


@dataclasses.dataclass(frozen=True)
class SweepColumns:
    """The meaning of the columns of a table of a sweep, with one row per run.

    Attributes:
      architecture: column with the architecture's name.
      size: column with the size's label.
      params: column with the parameters outside the embedding.
      rate: column with the learning rate, or another setting above 0 that was swept.
      seed: column with the seed.
      loss: column with the loss in nats.
      where: keep only the rows where these columns have these values: `steps=1000`; of a study's
        directory, the runs that meet these conditions.
    """

    architecture: str = "architecture"
    size: str = "size"
    params: str = "params_non_embedding"
    rate: str = "learning_rate"
    seed: str = "seed"
    loss: str = "upstream_nll"
    where: tuple[str, ...] = ()


def of_study(study: Study) -> pd.DataFrame:
    """The runs of a study, as rows of `eval.analyses.tuning.curves`.

    Raises:
      InputError: a run has no recorded learning rate.
    """
    runs = study.told_apart().runs.merge(study.recipes, on="run_id", validate="one_to_one")
    names = {"params_non_embedding": "params", "learning_rate": "rate", "upstream_nll": "loss"}
    runs = runs.rename(columns=names)
    lacking = runs[runs["rate"].isna()]
    if len(lacking):
        raise InputError(f"run {lacking['run_id'].iloc[0]}: no learning rate is recorded")
    return runs[list(_NEEDED)].astype({"params": float, "rate": float, "loss": float})


def of_directory(path: Path, where: tuple[str, ...] = ()) -> pd.DataFrame:
    """The runs of a study's directory."""
    return of_study(read_study(path, where))


def of_table(path: Path, columns: SweepColumns = SweepColumns()) -> pd.DataFrame:
    """The runs of a table.

    Raises:
      InputError: the file or a column is missing or malformed, or a rate is not above 0.
    """
    table = Table.read(path, columns.where)
    for option in ("architecture", "size", "rate", "seed", "loss"):
        table.require(getattr(columns, option), option)
    rate, loss = table.numbers(columns.rate), table.numbers(columns.loss)
    for row in rate.index[~(rate > 0) | (rate == math.inf)]:
        table.refuse(row, columns.rate, "is not above 0" if rate[row] <= 0 else "")
    for row in loss.index[loss.isna()]:
        table.refuse(row, columns.loss)
    known = columns.params in table
    return pd.DataFrame(
        {
            "architecture": table.texts(columns.architecture),
            "size": table.texts(columns.size),
            "params": table.numbers(columns.params) if known else math.nan,
            "rate": rate,
            "seed": table.wholes(columns.seed),
            "loss": loss,
        }
    )


def write(found: Sequence[Curve], source: str, path: Path) -> None:
    """Writes the best rates and their exponents, for `train.study.declare.tuned`.

    Args:
      found: from `eval.analyses.tuning.curves`.
      source: where the sweep is, such as its directory.
      path: of the JSON file.
    """
    cells = [
        {
            "architecture": without_family(c.architecture),
            "family": c.family,
            "size": c.size,
            "params": _known(c.params),
            "best_rate": _known(c.best),
            "interval": [_known(end) for end in c.interval()],
            "note": c.problem,
        }
        for c in found
    ]
    slopes = exponents(found).set_index("architecture")["exponent"]
    for cell, curve in zip(cells, found, strict=True):
        cell["exponent"] = _known(float(slopes[curve.architecture]))
    content = {"setting": SETTING, "sweep": source, "cells": cells}
    with replacing(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def _known(value: float) -> float | None:
    """The number, or None where JSON has none."""
    return float(value) if math.isfinite(value) else None

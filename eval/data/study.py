"""Reads the run records of a study into one typed table, with one row per finished run.

Nothing is dropped silently. Runs that failed or have not finished are listed separately, and a
warning in words points out everything that limits how far the table can be trusted (mixed corpora,
missing scores, torn files).
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.data import archive, families
from eval.data import where as conditions
from eval.data.provenance import device, provenance, settings
from train import records
from train.records import InputError

TEXT_COLUMNS = ("run_id", "study", "architecture", "family", "size", "protocol")
COST_COLUMNS = (
    "params_total",
    "params_embedding",
    "params_non_embedding",
    "params_active",
    "state_size",
    "flops_forward",
    "flops_train_total",
    "tokens_seen",
    "unique_tokens",
    "steps",
    "steps_per_second",
    "tokens_per_second",
    "mfu",
)
UPSTREAM_COLUMNS = (
    "upstream_nll",
    "upstream_nll_stderr",
    "upstream_neg_log_ppl",
    "upstream_bits_per_byte",
)
BITS_PER_BYTE = "upstream_bits_per_byte"
AVERAGES = {
    "downstream_glue": "glue_",
    "downstream_super_glue": "super_glue_",
    "downstream_mean": "",
}
"""Averages over tasks, with the start of the names of the tasks that are averaged."""
GROUP_COLUMNS = ("downstream_glue", "downstream_super_glue", "downstream_squad", "downstream_mean")
EVAL_COLUMNS = ("run_id", "stage", "task", "split", "metric", "step", "value", "n", "stderr")
RECIPE_COLUMNS = (
    "run_id",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "decay_steps",
    "mixture",
    "probe",
)
SHAPE_COLUMNS = ("run_id", "num_layers", "embed_dim", "mlp_dim", "num_heads")
MEASURE_COLUMNS = ("run_id", "measure", "rank", "value")
UNFINISHED_COLUMNS = (
    "run_id",
    "architecture",
    "family",
    "size",
    "protocol",
    "seed",
    "state",
    "stage",
    "step",
    "error",
)


MANIFEST = "study.json"  # written by the launcher; lists the runs that the study declares


@dataclasses.dataclass(frozen=True)
class Study:
    """A study in the form that the analyses use.

    Attributes:
      name: the study's name.
      runs: one row per finished run: run_id, study, architecture, family (encoder_decoder or
        decoder_only; empty if a table from elsewhere does not say), size, protocol (text); seed
        (integer); the parameter, FLOP (per sequence), token and speed columns, among them
        unique_tokens, the different tokens of text that a run has read; upstream_nll and its
        standard error (nats per target token), upstream_neg_log_ppl = -upstream_nll,
        upstream_bits_per_byte (the same loss in a unit that does not depend on the tokenizer); NaN
        for a run on a probe;
        downstream_<task>, the best of all evaluations of a run, as the study reports it, and the
        downstream averages (percent); corpus, device.
      evals: the last evaluation of every (run_id, stage, task, split, metric), with step, value, n
        and stderr. For the metric "score" it is that of the final checkpoint.
      unfinished: runs that failed or are not done, with state, stage, step and error; none of them
        is in `runs`.
      settings: the settings of the runs, as rows of (setting, value, runs).
      provenance: one row per run of `runs`: configuration hash, corpus fingerprint, commit,
        versions, device.
      warnings: what to know before using the results, one sentence each.
      flops_by_part: forward FLOPs of one sequence as rows of (run_id, part, flops).
      shapes: the dimensions of each run's model as rows of SHAPE_COLUMNS; num_layers is the mean
        over the model's stacks, one or two.
      histories: every evaluation during pretraining, where `evals` has only the last, with the
        columns of `evals`; empty for a table from elsewhere.
      recipes: settings of pretraining that analyses of one run need, as rows of RECIPE_COLUMNS; NaN
        where they are not recorded. The mixture is a text, such as "docstrings 0.25, source 0.75",
        empty for the corpus as it is; so is the probe, such as "mqar, pairs 8", empty for a run on
        text. `settings` says how often each value occurs.
      measures: what the verbs of `train` measured of finished runs, as rows of MEASURE_COLUMNS; the
        rank is that of a head or a matrix, NaN where a value has none.
      paths: the run directory of each run of `runs`, by run id; empty for a table from elsewhere.
      tuning: the file of `eval tune` from which the study's learning rates come, as it declares.
    """

    name: str
    runs: pd.DataFrame
    evals: pd.DataFrame
    unfinished: pd.DataFrame
    settings: pd.DataFrame
    provenance: pd.DataFrame
    warnings: tuple[str, ...] = ()
    flops_by_part: pd.DataFrame = dataclasses.field(
        default_factory=lambda: pd.DataFrame(columns=["run_id", "part", "flops"])
    )
    shapes: pd.DataFrame = dataclasses.field(
        default_factory=lambda: pd.DataFrame(columns=["run_id", "num_layers", "embed_dim"])
    )
    histories: pd.DataFrame = dataclasses.field(
        default_factory=lambda: pd.DataFrame(columns=list(EVAL_COLUMNS))
    )
    recipes: pd.DataFrame = dataclasses.field(
        default_factory=lambda: pd.DataFrame(columns=list(RECIPE_COLUMNS))
    )
    measures: pd.DataFrame = dataclasses.field(
        default_factory=lambda: pd.DataFrame(columns=list(MEASURE_COLUMNS))
    )
    paths: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    tuning: str = ""

    def __repr__(self) -> str:
        """How much it holds, not its tables."""
        finished, left = len(self.runs), len(self.unfinished)
        return f"Study({self.name!r}, {finished} finished runs, {left} not finished)"

    def told_apart(self) -> "Study":
        """The same study with each family of an architecture under a name of its own.

        See `eval.data.families.told_apart`; every analysis groups runs by these names.
        """
        return dataclasses.replace(self, runs=families.told_apart(self.runs))

    @property
    def not_finished(self) -> str:
        """What the unfinished runs wait for, as the end of a sentence; empty if there are none."""
        if self.unfinished.empty:
            return ""
        first = self.unfinished.iloc[0]
        stage = f", stage {first['stage']}" if first["stage"] else ""
        more = f" and {len(self.unfinished) - 1} more" if len(self.unfinished) > 1 else ""
        return f"; {first['run_id']} is {first['state']}{stage}{more}"

    @functools.cached_property
    def evaluation_errors(self) -> pd.DataFrame:
        """The standard error of each quality of a run over the held-out examples.

        A frame on the index of `runs` with the quality columns; NaN where the records have none.
        """
        runs, evals = self.runs, self.evals
        errors = pd.DataFrame({"upstream_nll": runs.upstream_nll_stderr})
        in_bytes = evals[
            (evals.stage == "pretrain")
            & (evals.split == "validation")
            & (evals.metric == "bits_per_byte")
        ]
        errors[BITS_PER_BYTE] = runs.run_id.map(
            in_bytes.drop_duplicates("run_id", keep="last").set_index("run_id").stderr
        ).astype(float)
        scores = headlines(evals)
        tasks = [c.removeprefix("downstream_") for c in task_columns(runs)]
        for task in tasks:
            one = scores[scores.task == task].set_index("run_id").stderr
            errors[f"downstream_{task}"] = runs.run_id.map(one).astype(float)
        for column, prefix in AVERAGES.items():
            members = [f"downstream_{task}" for task in tasks if task.startswith(prefix)]
            if members:  # tasks have different examples, so their errors are independent
                errors[column] = np.sqrt((errors[members] ** 2).sum(axis=1, skipna=False)) / len(
                    members
                )
        return errors


MEAN_OF_TASKS = "mean"
"""The task of a learning curve that is the mean over all tasks of a run."""
MOST_POINTS = 100
"""The largest number of points of a learning curve, unless asked otherwise."""


def learning_curves(study: Study, most: int = MOST_POINTS) -> pd.DataFrame:
    """Reads how every finished run learned; reads its records again, so call it once.

    Args:
      study: from `read_study`.
      most: the largest number of points of one curve. A longer one is thinned evenly, and keeps its
        first and last point. The curves of a run's downstream tasks share this number.

    Returns:
      A row per point, with columns
        run_id, curve (`train`: the training loss; `heldout`: the held-out loss, both upstream;
        `score`: a downstream score), task (of a score; MEAN_OF_TASKS for their mean where every
        task was evaluated; otherwise empty), step (of pretraining, or
        of fine-tuning for a score), tokens (seen until then; NaN if unknown), value (nats per
        target token; percent).

    Raises:
      InputError: a record cannot be read or is malformed.
    """
    rows = []
    for run_id, directory in study.paths.items():
        metrics = records.read_jsonl(
            directory / "metrics.jsonl", {"stage": str, "step": int}, allow_torn=True
        )
        evals = records.read_jsonl(
            directory / "evals.jsonl",
            {"stage": str, "step": int, "metric": str, "task": str},
            allow_torn=True,
        )
        for name, task, points in _curves(metrics, evals, directory):
            tasks = 1 + len({row["task"] for row in evals if row["stage"] == "finetune"})
            share = most if name != "score" else max(2, most // tasks)
            kept = np.unique(np.linspace(0, len(points) - 1, min(share, len(points))).round())
            rows += [(run_id, name, task, *points[int(i)]) for i in kept]
    columns = ["run_id", "curve", "task", "step", "tokens", "value"]
    return pd.DataFrame(rows, columns=columns)


def _curves(
    metrics: list[records.Row], evals: list[records.Row], directory: Path
) -> list[tuple[str, str, list[tuple[int, float, float]]]]:
    """The curves of one run as (curve, task, points of step, tokens and value by step)."""
    tokens, found = {}, {}
    for i, row in enumerate(metrics, start=1):
        if row["stage"] != "pretrain":
            continue
        path, step = directory / "metrics.jsonl", row["step"]
        tokens[step] = _number(row.get("tokens"), path, f"row {i}: tokens")
        value = _number(row.get("nll"), path, f"row {i}: nll")
        found.setdefault(("train", ""), {})[step] = value
    for i, row in enumerate(evals, start=1):
        key = {("pretrain", "nll"): "heldout", ("finetune", "score"): "score"}.get(
            (row["stage"], row["metric"])
        )
        if key is None or row.get("split", "validation") != "validation":
            continue
        value = _number(row.get("value"), directory / "evals.jsonl", f"row {i}: value")
        task = row["task"] if key == "score" else ""
        found.setdefault((key, task), {})[row["step"]] = value
    scores = [points for (name, _), points in found.items() if name == "score"]
    if scores:
        shared = set.intersection(*(set(points) for points in scores))
        found["score", MEAN_OF_TASKS] = {
            step: float(np.mean([points[step] for points in scores])) for step in shared
        }
    return [
        (
            name,
            task,
            [
                (step, tokens.get(step, np.nan) if name != "score" else np.nan, value)
                for step, value in sorted(points.items())
                if np.isfinite(value)
            ],
        )
        for (name, task), points in found.items()
        if points
    ]


def run_columns(tasks: Iterable[str]) -> list[str]:
    """The columns of `Study.runs` for these task names, in order."""
    downstream = [
        f"downstream_{task}" for task in sorted(tasks) if f"downstream_{task}" not in GROUP_COLUMNS
    ]
    return [
        *TEXT_COLUMNS,
        "seed",
        *COST_COLUMNS,
        *UPSTREAM_COLUMNS,
        *downstream,
        *GROUP_COLUMNS,
        "corpus",
        "device",
    ]


def task_columns(table: pd.DataFrame) -> list[str]:
    """The columns of single downstream tasks; `downstream_squad` is both a task and an average."""
    averages = {"downstream_glue", "downstream_super_glue", "downstream_mean"}
    columns = [c for c in table.columns if c.startswith("downstream_") and c not in averages]
    return [c for c in columns if c != "downstream_squad" or table[c].notna().any()]


def read_study(path: str | os.PathLike[str], where: tuple[str, ...] = ()) -> Study:
    """Reads every run directory under `path` (at most two levels down).

    Example:
      >>> study = read_study("runs/cpu", where=("architecture=transformer,switch",))
      >>> study.runs[["architecture", "size", "seed", "upstream_nll"]]
      >>> study.warnings  # what to know before using the numbers

    Args:
      path: a study's directory, as in runs/<study>, or its archive.
      where: keeps only the runs that meet these conditions on the columns of `Study.runs`, see
        `eval.data.where`; a warning says how many do not.

    Raises:
      InputError: there are no runs, a record cannot be read, a field has the wrong type, one run_id
        is in two directories, or no finished run meets a condition.
    """
    path = archive.opened(Path(path))
    if path.is_file():
        raise InputError(f"runs: {str(path)!r} is a file; eval.read_table reads a table of runs")
    directories = records.find_runs(path)
    if not directories:
        raise InputError(
            f"runs: {str(path)!r} holds no run (a run is a directory with a config.json)"
        )
    runs = [records.read_run(directory, allow_torn=True) for directory in directories]
    identities = [_identity(run) for run in runs]
    _refuse_duplicates(runs, identities)
    done = [i for i, run in enumerate(runs) if run.status.get("state") == "done"]
    left = [i for i in range(len(runs)) if i not in set(done)]
    study = _study(runs, identities, done, left)
    absent = _absent(Path(path), {identity["run_id"] for identity in identities})
    if where and done:
        chosen = set(conditions.where(study.runs, where, Path(path)).run_id)
        kept = [i for i in done if identities[i]["run_id"] in chosen]
        told = study.unfinished  # unfinished runs have names, but no costs or scores yet
        for condition in where:
            if condition.partition("=")[0] in told:
                told = told[conditions.meets(told, condition, Path(path))]
        study = _study(
            runs, identities, kept, [i for i in left if identities[i]["run_id"] in set(told.run_id)]
        )
        if len(kept) < len(done):
            lost = (
                f"{len(done) - len(kept)} of {len(done)} finished runs are left out: they do not "
                "meet"
            )
            study = dataclasses.replace(
                study, warnings=(f"{lost} {' and '.join(where)}.", *study.warnings)
            )
    tuning = records.read_json(Path(path) / MANIFEST, missing={}).get("tuning", "")
    if not isinstance(tuning, str):
        raise InputError(f"{Path(path) / MANIFEST}: tuning = {tuning!r} is not the name of a file")
    return dataclasses.replace(study, warnings=(*absent, *study.warnings), tuning=tuning)


def _study(
    runs: list[records.Run], identities: list[dict[str, Any]], done: list[int], left: list[int]
) -> Study:
    """Builds the study from the runs in `done` and lists those in `left` as unfinished."""
    every = _every_eval([(identities[i]["run_id"], runs[i]) for i in done])
    evals = _last(every)
    tasks = sorted(evals.loc[evals.stage == "finetune", "task"].unique())
    rows = [identities[i] | _costs(runs[i]) | _origin(runs[i]) for i in done]
    sources = pd.DataFrame([provenance(identities[i]["run_id"], runs[i]) for i in done])
    table = _typed(_tell_corpora_apart(pd.DataFrame(rows), sources), evals, tasks)
    order = table.sort_values(["architecture", "params_total", "protocol", "seed", "run_id"]).index
    names = sorted({identity["study"] for identity in identities})
    unfinished = [_unfinished(identities[i], runs[i]) for i in left]
    study = Study(
        name=", ".join(names),
        runs=table.loc[order].reset_index(drop=True),
        evals=evals,
        unfinished=pd.DataFrame(unfinished, columns=list(UNFINISHED_COLUMNS)),
        settings=settings([runs[i] for i in done]),
        provenance=sources.loc[order].reset_index(drop=True) if len(sources) else sources,
        shapes=_shapes([(identities[i]["run_id"], runs[i]) for i in done]),
        flops_by_part=_parts([(identities[i]["run_id"], runs[i]) for i in done]),
        histories=every[every.stage == "pretrain"].reset_index(drop=True),
        recipes=_recipes([(identities[i]["run_id"], runs[i]) for i in done]),
        measures=_measures([(identities[i]["run_id"], runs[i]) for i in done]),
        paths={identities[i]["run_id"]: runs[i].path for i in done},
    )
    told = [runs[i] for i in (*done, *left)]
    on_text = study.recipes[study.recipes["probe"] == ""].run_id
    checked = check(study, on_text)
    return dataclasses.replace(study, warnings=(*_torn(told), *_lost(told), *checked))


def _identity(run: records.Run) -> dict[str, Any]:
    """The text columns and the seed; what is missing or of a wrong type is an error."""
    config, path = run.config, run.path / "config.json"
    defaults = {"study": run.path.parent.name, "protocol": "", "run_id": run.path.name}
    defaults["family"] = families.ENCODER_DECODER  # older records have no family
    row = {}
    for key in TEXT_COLUMNS:
        value = config.get(key, defaults.get(key))
        if not isinstance(value, str):
            raise InputError(f"{path}: {key} = {value!r} is not a text")
        row[key] = value
    seed = config.get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"{path}: seed = {seed!r} is not an integer")
    return row | {"seed": seed}


def _refuse_duplicates(runs: list[records.Run], identities: list[dict[str, Any]]) -> None:
    seen: dict[str, Path] = {}
    for run, identity in zip(runs, identities, strict=True):
        first = seen.setdefault(identity["run_id"], run.path)
        if first != run.path:
            raise InputError(
                f"{run.path / 'config.json'}: run_id {identity['run_id']!r} also stands in {first}"
            )


def _number(value: Any, path: Path, key: str) -> float:
    if value is None:
        return np.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{path}: {key} = {value!r} is not a number")
    return float(value)


def _costs(run: records.Run) -> dict[str, float]:
    """Parameters and FLOPs from the accounting; steps and median speeds of pretraining."""
    accounting = run.config.get("accounting") or {}
    if not isinstance(accounting, dict):
        raise InputError(
            f"{run.path / 'config.json'}: accounting = {accounting!r} is not an object"
        )
    row = {
        key: _number(accounting.get(key), run.path / "config.json", f"accounting.{key}")
        for key in COST_COLUMNS[:7]
    }
    metrics = [(i, m) for i, m in enumerate(run.metrics, start=1) if m["stage"] == "pretrain"]

    def numbers(key: str) -> list[float]:
        path = run.path / "metrics.jsonl"
        values = [_number(m.get(key), path, f"row {i}: {key}") for i, m in metrics]
        return [value for value in values if np.isfinite(value)]

    for key in ("steps_per_second", "tokens_per_second", "mfu"):
        row[key] = float(np.median(numbers(key))) if numbers(key) else np.nan
    row["tokens_seen"] = max(numbers("tokens"), default=np.nan)
    row["steps"] = max(numbers("step"), default=np.nan)
    return row | _data_seen(run, accounting, row["steps"])


def _data_seen(run: records.Run, accounting: dict[str, Any], steps: float) -> dict[str, float]:
    """The different tokens of text that a run has read, and its cost if it ended early."""
    path = run.path / "config.json"
    keys = ("sequences_per_step", "sequences_per_epoch", "tokens_per_epoch", "flops_train")
    sequences, epoch, tokens, flops = (
        _number(accounting.get(key), path, f"accounting.{key}") for key in keys
    )
    found = {"unique_tokens": float(np.minimum(steps * sequences / epoch, 1.0) * tokens)}
    if (run.config.get("pretrain") or {}).get("patience"):
        found["flops_train_total"] = steps * sequences * flops
    return found


def _shapes(runs: list[tuple[str, records.Run]]) -> pd.DataFrame:
    rows = []
    for run_id, run in runs:
        model, path = run.config.get("model") or {}, run.path / "config.json"
        sizes = [
            _number(model.get(key), path, f"model.{key}")
            for key in ("num_encoder_layers", "num_decoder_layers", *SHAPE_COLUMNS[2:])
        ]
        stacks = [layers for layers in sizes[:2] if layers != 0]  # a decoder alone is one stack
        rows.append((run_id, float(np.mean(stacks)) if stacks else np.nan, *sizes[2:]))
    return pd.DataFrame(rows, columns=list(SHAPE_COLUMNS))


def _parts(runs: list[tuple[str, records.Run]]) -> pd.DataFrame:
    rows = [
        (run_id, part, _number(flops, run.path / "config.json", f"accounting.flops_by_part.{part}"))
        for run_id, run in runs
        for part, flops in ((run.config.get("accounting") or {}).get("flops_by_part") or {}).items()
    ]
    return pd.DataFrame(rows, columns=["run_id", "part", "flops"])


def _origin(run: records.Run) -> dict[str, str]:
    data = run.config.get("data")
    name = data.get("name") if isinstance(data, dict) else None
    return {"corpus": str(name or "not recorded"), "device": device(run.env)}


def _tell_corpora_apart(rows: pd.DataFrame, provenance: pd.DataFrame) -> pd.DataFrame:
    """Adds the fingerprint to the name of a corpus if several corpora have the same name."""
    if rows.empty:
        return rows
    fingerprint = provenance.corpus_fingerprint.str[:8]
    ambiguous = fingerprint.groupby(rows.corpus).transform("nunique") > 1
    return rows.assign(corpus=rows.corpus.where(~ambiguous, rows.corpus + "@" + fingerprint))


def _recipes(runs: list[tuple[str, records.Run]]) -> pd.DataFrame:
    rows = []
    for run_id, run in runs:
        stage, path = run.config.get("pretrain") or {}, run.path / "config.json"
        optimizer = stage.get("optimizer")
        optimizer = optimizer if isinstance(optimizer, dict) else {}
        found = [stage.get("batch_size"), *(optimizer.get(key) for key in RECIPE_COLUMNS[2:-2])]
        named = zip(RECIPE_COLUMNS[1:-2], found, strict=True)
        numbers = [_number(value, path, f"pretrain: {key}") for key, value in named]
        texts = _mixture(stage.get("sources"), path), _probe(stage.get("probe"), path)
        rows.append((run_id, *numbers, *texts))
    return pd.DataFrame(rows, columns=list(RECIPE_COLUMNS))


def _mixture(sources: Any, path: Path) -> str:
    """The parts of a corpus with their shares, in words."""
    sources = sources or {}
    if not isinstance(sources, dict):
        raise InputError(f"{path}: pretrain: sources = {sources!r} is not an object")
    shares = {name: _number(sources[name], path, f"sources.{name}") for name in sorted(sources)}
    total = sum(shares.values())
    return ", ".join(f"{name} {share / total:.3g}" for name, share in shares.items() if share)


def _probe(probe: Any, path: Path) -> str:
    """The name of a probe and its settings, in words."""
    probe = probe or {}
    if not isinstance(probe, dict) or not all(isinstance(key, str) for key in probe):
        raise InputError(f"{path}: pretrain: probe = {probe!r} is not an object")
    values = {key: "/".join(map(str, x)) if isinstance(x, list) else x for key, x in probe.items()}
    settings = [f"{key} {values[key]}" for key in sorted(values) if key != "task"]
    return ", ".join([str(probe["task"]), *settings]) if "task" in probe else ""


def _measures(runs: list[tuple[str, records.Run]]) -> pd.DataFrame:
    rows = [
        (run_id, row["measure"], *(_number(row.get(key), path, key) for key in ("rank", "value")))
        for run_id, run in runs
        for path in (run.path / records.MEASURES,)
        for row in run.measures
    ]
    return pd.DataFrame(rows, columns=list(MEASURE_COLUMNS))


_MEASUREMENT = ["run_id", "stage", "task", "split", "metric"]  # what a row of `evals` is named by


def _every_eval(runs: list[tuple[str, records.Run]]) -> pd.DataFrame:
    """Every row of every run's evaluations, in order of their steps."""
    rows = [{"run_id": run_id, **row} for run_id, run in runs for row in run.evals]
    table = pd.DataFrame(rows, columns=list(EVAL_COLUMNS))
    table = table.astype(
        {key: "str" for key in _MEASUREMENT} | {key: "float64" for key in ("value", "n", "stderr")}
    )
    return table.sort_values("step", kind="stable")


def _last(evals: pd.DataFrame) -> pd.DataFrame:
    """The last row of every measurement of every run."""
    table = evals.drop_duplicates(_MEASUREMENT, keep="last")
    return table.sort_values(_MEASUREMENT, kind="stable").reset_index(drop=True)


def _typed(table: pd.DataFrame, evals: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """Adds the scores, and puts every column into its order and type."""
    columns = run_columns(tasks)
    if table.empty:
        types = {
            c: "str" if c in (*TEXT_COLUMNS, "corpus", "device") else "float64" for c in columns
        }
        return pd.DataFrame(columns=columns).astype(types | {"seed": "int64"})
    heldout = evals[(evals.stage == "pretrain") & (evals.split == "validation")]
    heldout = heldout[heldout.task == "corpus"]  # the loss of a probe is not that of text
    upstream, in_bytes = (
        heldout[heldout.metric == metric].drop_duplicates("run_id", keep="last").set_index("run_id")
        for metric in ("nll", "bits_per_byte")
    )
    scores = headlines(evals).pivot(index="run_id", columns="task", values="value")
    scores = scores.reindex(columns=tasks).add_prefix("downstream_").reindex(table.run_id)
    table = table.assign(
        upstream_nll=table.run_id.map(upstream.value),
        upstream_nll_stderr=table.run_id.map(upstream.stderr),
        upstream_bits_per_byte=table.run_id.map(in_bytes.value),
        **{str(column): scores[column].to_numpy() for column in scores},
    )
    return complete(table, tasks)


def headlines(evals: pd.DataFrame) -> pd.DataFrame:
    """The row behind each run's score on a task: the best score, or else the last."""
    scores = evals[(evals.stage == "finetune") & evals.metric.isin(["best_score", "score"])]
    return scores.sort_values("metric").drop_duplicates(["run_id", "task"])


def complete(table: pd.DataFrame, tasks: Iterable[str]) -> pd.DataFrame:
    """Adds the derived columns (negative log-perplexity, averages), orders and types all.

    An average is NaN if one of its tasks is NaN: a mean over fewer tasks would be a different
    quantity.

    Args:
      table: a run table with at least the text columns, the seed and downstream_<task> for every
        task.
      tasks: task names.
    """
    tasks = sorted(tasks)
    averages = {
        "downstream_squad": [t for t in tasks if t == "squad" or t.startswith("squad_")],
        **{
            column: [t for t in tasks if t.startswith(prefix)]
            for column, prefix in AVERAGES.items()
        },
    }
    table = table.copy()
    for column, members in averages.items():
        # A user's table may have its own average. It is kept if there are no tasks to average.
        if members:
            table[column] = (
                table[[f"downstream_{t}" for t in members]].astype(float).mean(axis=1, skipna=False)
            )
    table["upstream_neg_log_ppl"] = (
        -table["upstream_nll"].astype(float) if "upstream_nll" in table else np.nan
    )
    table = table.reindex(columns=run_columns(tasks))
    text = {c: "str" for c in (*TEXT_COLUMNS, "corpus", "device")}
    numbers = {c: "float64" for c in table.columns if c not in text and c != "seed"}
    return table.astype(text | numbers | {"seed": "int64"})


def _unfinished(identity: dict[str, Any], run: records.Run) -> dict[str, Any]:
    state = {key: run.status.get(key) for key in ("state", "stage", "step", "error")}
    state = {key: "" if value is None else str(value) for key, value in state.items()}
    return {key: value for key, value in (identity | state).items() if key in UNFINISHED_COLUMNS}


def _torn(runs: list[records.Run]) -> list[str]:
    """Names the record files whose last line is cut off and was left out."""
    files = [run.path / name for run in runs for name in ("metrics.jsonl", "evals.jsonl")]
    torn = [file for file in files if file.exists() and not _ends_whole(file)]
    return [
        f"{file.parent.name}/{file.name}: the last line is torn and was left out." for file in torn
    ]


def _lost(runs: list[records.Run]) -> list[str]:
    """Names the runs that lost records and went on; their best score is of what is left."""
    warnings = []
    for run in runs:
        events = records.read_jsonl(run.path / "events.jsonl", {"event": str}, allow_torn=True)
        for detail in [
            str(event.get("detail")) for event in events if event["event"] == records.LOST
        ]:
            warnings.append(f"{run.path.name}: records were lost before the run went on: {detail}.")
    return warnings


def _ends_whole(file: Path) -> bool:
    with open(file, "rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(size - 1, 0))
        return size == 0 or handle.read(1) == b"\n"


def check(study: Study, on_text: pd.Series | None = None) -> list[str]:
    """Warnings that a reader must know before trusting the table, most serious first.

    Args:
      study: the study.
      on_text: the run ids of the runs on text, whose losses are compared; None for all.
    """
    runs, warnings = study.runs, []
    text = runs if on_text is None else runs[runs.run_id.isin(on_text)]
    if runs.empty:
        warnings.append(
            f"No run of this study is finished ({len(study.unfinished)} are not): there is nothing "
            "to compare."
        )
    for column, what in (("corpus_fingerprint", "corpora"), ("device", "devices")):
        if column in study.provenance:
            rows = study.provenance
            if what == "corpora":
                rows = rows[rows.run_id.isin(text.run_id)]
            groups = rows.groupby(column).size()
            if len(groups) > 1:
                listed = "; ".join(f"{str(name)[:12]} ({n} runs)" for name, n in groups.items())
                verdict = (
                    "their losses cannot be compared"
                    if what == "corpora"
                    else "their speeds cannot be compared"
                )
                warnings.append(
                    f"The runs used {len(groups)} different {what}: {verdict}: {listed}."
                )
    failed = (
        study.unfinished[study.unfinished.state == "failed"]
        if len(study.unfinished)
        else study.unfinished
    )
    if len(failed):
        warnings.append(
            f"{len(failed)} of {len(runs) + len(study.unfinished)} runs failed and are in no table "
            "or figure."
        )
    if len(study.unfinished) > len(failed):
        warnings.append(
            f"{len(study.unfinished) - len(failed)} runs are not finished and are in no table or "
            "figure."
        )
    return warnings + _gaps(runs, text) + _selection(study.evals)


def _selection(evals: pd.DataFrame) -> list[str]:
    """A warning if the best evaluations are above the last ones: choosing them is biased."""
    scores = evals[evals.stage == "finetune"].pivot_table(
        index=["run_id", "task"], columns="metric", values="value"
    )
    if (
        not {"best_score", "score"} <= set(scores)
        or not (lift := (scores.best_score - scores.score).mean()) > 0
    ):
        return []
    best = "Downstream scores are those of the best checkpoint of each task, as in the study"
    return [
        f"{best}; the final ones, metric score of evals.csv, are {lift:.2f} points lower on "
        "average."
    ]


def _gaps(runs: pd.DataFrame, text: pd.DataFrame) -> list[str]:
    """Warnings about missing scores and missing costs; only runs on text need a held-out loss."""
    warnings = []
    for column, what in (
        ("upstream_nll", "held-out loss"),
        ("flops_forward", "FLOP count"),
        ("params_total", "parameter count"),
    ):
        asked = text if column == "upstream_nll" else runs
        missing = asked.loc[~np.isfinite(asked[column]), "run_id"]
        if len(missing):
            warnings.append(f"{len(missing)} finished runs have no {what}: {_few(missing)}.")
    for column in task_columns(runs):
        missing = runs.loc[runs[column].isna(), "run_id"]
        if len(missing):
            task = column.removeprefix("downstream_")
            warnings.append(
                f"{len(missing)} finished runs have no score on {task}, hence no mean: "
                f"{_few(missing)}."
            )
    cell = ["architecture", "family", "size", "protocol"]
    if len(runs) and runs.groupby(cell).seed.nunique().max() == 1:
        warnings.append(
            "Every cell has one seed: the noise between seeds cannot be told from the scatter of "
            "the sizes around their lines."
        )
    return warnings


def _few(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (
        f" and {len(names) - limit} more" if len(names) > limit else ""
    )


def _absent(path: Path, there: set[str]) -> list[str]:
    """A warning that names the runs of the study's manifest that have no directory.

    Raises:
      InputError: the manifest is malformed.
    """
    manifest = records.read_json(path / MANIFEST, missing={})
    cells = manifest.get("cells", [])
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise InputError(f"{path / MANIFEST}: cells is not a list of objects")
    names = ["-".join(_declared_name(cell, path / MANIFEST)) for cell in cells]
    gone = [name for name in names if name not in there]
    if not gone:
        return []
    named = list(zip([cell["architecture"] for cell in cells], names, strict=True))
    whole = sorted({name for name, _ in named} - {name for name, run in named if run in there})
    none = f" Of {', '.join(whole)} there is no run at all." if whole else ""
    count = f"{len(gone)} of the {len(names)} runs that {MANIFEST} declares are not in {path}"
    return [f"{count}, and take no part: {_few(gone)}.{none}"]


def _declared_name(cell: dict[str, Any], path: Path) -> list[str]:
    """The parts of a declared run's name, which is also the name of its directory."""
    family = cell.get("family", families.ENCODER_DECODER)
    parts = [
        cell.get("architecture"),
        cell.get("size"),
        "" if family == families.ENCODER_DECODER else family,
        cell.get("protocol", ""),
        f"s{cell.get('seed')}",
    ]
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"{path}: a cell has no architecture, size or seed: {str(cell)[:60]!r}")
    return [part for part in parts if part]

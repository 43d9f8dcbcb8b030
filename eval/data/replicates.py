"""Which rows of a table are one run, where a run ends, and what is a replicate of what."""

import re
from collections.abc import Collection, Sequence

import pandas as pd

from eval.data import entries
from eval.data.table import Table
from train.records import InputError

# What a run is told by besides its seed, whatever the values; beside them, any column whose values
# recur.
_SETTING = re.compile(
    r"(peak_?|max_?|base_?)?(lr|learning_?rate)|(global_?|micro_?)?batch(_?size)?|warm_?up.*|drop_?out.*|weight_?decay|wd"
    r"|optimi[sz]er|(lr_?)?schedule|beta_?[12]|epochs?|momentum|clip.*|z_?loss.*|label_?smoothing|vocab.*|tokeni[sz]er"
)
# What differs between replicates without making them anything else: where, when and how fast they
# ran, what they got. The last word of a name tells: `state` is none, `state_size` is a setting.
_CIRCUMSTANCE = re.compile(
    "seed|host|hostname|node|machine|devices?|gpus?|worker|user|commit|sha|hash|path|dir|directory|url|file|date|day|times?"
    "|timestamp|created|started|finished|ended|duration|runtime|seconds|hours|notes?|comments?|status|state|retries"
    "|restarts|attempt|job|index|id|uuid|name|run|mfu|speed|throughput|memory"
)
_OUTCOME = re.compile(
    "loss|nll|ppl|perplexity|acc|accuracy|scores?|f1|em|bleu|rouge|errors?|entropy|bpb|bpc|byte|reward|metric|match|mcc"
    "|se|std|stderr|ci|lower|upper|low|high"
)
_OF_WHAT = re.compile(
    "train|valid|validation|val|test|eval|dev|heldout|final|last|best|ema|mean|median|min|max|n"
)
_RUN_NAME = re.compile(
    r"(run|exp|experiment|trial|job|model|training|wandb)_?(id|name|path|no)?|(display_?)?name|u?id"
)
_STEP = re.compile(
    r"_?(global_?|train_?)?(step|steps|iter|iters|iteration|iterations|checkpoint|ckpt|update|updates)"
)
_LABELS = frozenset(
    {"size", "label", "scale", "family", "protocol", "seed", "corpus", "dataset", "data", "device"}
)
_RECURRING = 0.5  # of a column: settings take few values, outcomes as many as there are rows


def key(table: Table, columns: Sequence[str]) -> pd.Series:
    """One label for each row: what it has in these columns."""
    parts = [table.texts(column, "") for column in columns]
    return pd.Series(
        [", ".join(row) for row in zip(*parts, strict=True)], index=table.frame.index, dtype=object
    )


def last_rows(table: Table, run: Sequence[str], step: str) -> tuple[Table, pd.Series]:
    """The last row of every run, and the step that it is at; a run is rows that agree in the columns `run`.

    Raises:
      InputError: two rows of a run are at one step.
    """
    steps = table.wholes(step)
    at = pd.DataFrame({"run": key(table, run), "step": steps})
    twice = at.duplicated()
    if twice.any():
        row = twice.index[twice][0]
        before = at.index[(at == at.loc[row]).all(axis=1)][0]
        where = f"there twice at {step} {steps[row]}"
        if len(run) > 1:
            what = f"{', '.join(run)} are {where}: runs or checkpoints? Name the run or its seed ({table.row(before)})"
        else:
            what = f"{run[0]} {at['run'][row]!r} is {where} ({table.row(before)} as well): one name for two runs?"
        raise InputError(f"{table.path}: {table.row(row)}: {what}")
    last = (
        at.sort_values("step", kind="stable").groupby("run", sort=False).tail(1).sort_index().index
    )
    return table.take(last), steps[last]


def one_name_one_run(table: Table, run: str, same: Sequence[str]) -> None:
    """Refuses a name that stands for two runs: its rows differ in what a run has one of."""
    names = table.texts(run)
    for column in same:
        values = table.texts(column, "")
        distinct = values.groupby(names).nunique()
        if (distinct > 1).any():
            name = distinct.index[distinct > 1][0]
            rows = names.index[names == name]
            other = next(row for row in rows if values[row] != values[rows[0]])
            both = f"{values[rows[0]]!r} in {table.row(rows[0])}"
            table.refuse(other, column, f"but run {name!r} has {both}: one name for two runs?")


def ended_early(cell: pd.Series, steps: pd.Series, names: pd.Series) -> list[str]:
    """A warning that names the runs whose last row is before that of others of their cell."""
    most = steps.groupby(cell).transform("max")
    early = steps[steps < most]
    if early.empty:
        return []
    named = [f"{names[row]} (step {steps[row]} of {most[row]})" for row in early.index]
    shown = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
    return [
        f"{len(named)} runs end before the others of their cell, and are averaged with them: {shown}."
    ]


def refuse_settings(
    table: Table, cell: pd.Series, known: Collection[str], choose: str, steps: str = ""
) -> None:
    """Refuses rows of one cell that differ in a setting: they are no replicates of one thing.

    Args:
      table: one row per run.
      cell: label of what a row is a replicate of.
      known: columns that have a meaning already, or that the person says are no settings.
      choose: options that give the column a meaning, with {column} for its name.
      steps: option that makes rows of a cell checkpoints of one run, where the verb has one.

    Raises:
      InputError: names the column, its values and how to choose.
    """
    if not cell.duplicated().any():
        return
    for column in map(str, table.frame.columns):
        plain = _plain(column)
        progress = bool(_STEP.fullmatch(plain))
        setting = bool(_SETTING.fullmatch(plain))
        if column in known or (_is_result(plain) and not progress and not setting):
            continue
        values = table.frame[column].map(_shown)
        if (values.groupby(cell).nunique() < 2).all():
            continue
        distinct = list(dict.fromkeys(values))
        recurring = len(distinct) <= _RECURRING * len(values)
        words = any(
            isinstance(v, str) and not entries.NUMBER.fullmatch(v) for v in table.frame[column]
        )
        if recurring or progress or setting or (words and len(distinct) < len(values)):
            several = values.groupby(cell).transform("nunique") > 1
            here = values[cell == cell[several.index[several][0]]]
            rows = [here.index[0], here.index[(here != here.iloc[0]).to_numpy()][0]]
            shown = ", ".join(distinct[:4]) + (" ..." if len(distinct) > 4 else "")
            both = f"{table.row(rows[0])} and {table.row(rows[1])} are one cell ({cell[rows[0]]})"
            how = f"--where {column}={here.iloc[0]}, {choose.format(column=column)}, or --ignore {column}"
            how = (
                f"{steps} {column} if they are checkpoints of one run, {how}"
                if progress and steps
                else how
            )
            raise InputError(
                f"{table.path}: {both} but differ in {column} ({len(distinct)} values: {shown}), so they are no "
                f"replicates: choose with {how} if it is no setting"
            )


def _is_result(plain: str) -> bool:
    """Whether a column's name says that it is no setting."""
    words = [word for word in plain.split("_") if word]
    while len(words) > 1 and _OF_WHAT.fullmatch(words[-1]):
        words.pop()
    return not words or any(kind.fullmatch(words[-1]) for kind in (_CIRCUMSTANCE, _OUTCOME))


def _shown(value: object) -> str:
    return "" if entries.is_missing(value) else entries.text(value)


def run_column(
    table: Table, used: Collection[str], size: pd.Series, data: pd.Series
) -> tuple[str, str]:
    """The column that says which rows are checkpoints of one run, and a warning about it; both may be empty.

    Rows of one run share their noise. A run's column is known by its name, or by what it does: its
    values repeat, each with one model and another amount of data in every row, in a table that has
    steps or several runs of one size.

    Args:
      table: the rows.
      used: columns that mean something else.
      size: what all rows of a run agree in; constant where nobody knows.
      data: what differs between the rows of a run.
    """
    steps = any(_STEP.fullmatch(_plain(str(column))) for column in table.frame.columns)
    doubt = ""
    for column in map(str, table.frame.columns):
        plain = _plain(column)
        if (
            column in used
            or _STEP.fullmatch(plain)
            or _SETTING.fullmatch(plain)
            or plain in _LABELS
        ):
            continue
        values = table.frame[column].map(_shown)
        one_model = (size.groupby(values).nunique() == 1).all()
        checkpoints = not pd.DataFrame({"run": values, "data": data}).duplicated().any()
        repeats = values.duplicated().any() and values.nunique() > 1 and (values != "").all()
        if not (repeats and one_model and checkpoints):
            continue
        whole = all(entries.ordinal(value) is not None for value in table.frame[column])
        words = not all(map(entries.NUMBER.fullmatch, values))
        crowded = size.nunique() > 1 and (values.groupby(size).nunique() > 1).any()
        if _RUN_NAME.fullmatch(plain) or ((words or whole) and steps) or (words and crowded):
            n = values.nunique()
            said = f"rows that share {column} are taken as checkpoints of one run ({n} runs)"
            return column, f"{said}; --cluster none if they are not"
        if words:
            doubt = (
                f"are rows that share {column} checkpoints of one run? Then say --cluster {column}"
            )
    repeated = size.nunique() > 1 and (data.groupby(size).nunique() > 1).any()
    if not doubt and steps and repeated:
        doubt = "rows of one size are at several steps: if they are checkpoints of one run, name it with --cluster"
    return "", doubt


def _plain(name: str) -> str:
    return re.sub(r"[ ./-]+", "_", name.strip().lower())

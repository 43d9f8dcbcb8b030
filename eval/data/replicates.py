"""Decides which rows of a table are one run, where a run ends, and which runs are replicates."""

import re
from collections.abc import Collection, Sequence

import pandas as pd

from eval.data import entries
from eval.data.table import Table
from train.records import InputError

# Names of settings, which distinguish runs besides the seed. Columns whose values recur count as
# settings too.
_SETTING = re.compile(
    r"(peak_?|max_?|base_?)?(lr|learning_?rate)|(global_?|micro_?)?batch(_?size)?|warm_?up.*|drop_?out.*|weight_?decay|wd"
    r"|optimi[sz]er|(lr_?)?schedule|beta_?[12]|epochs?|momentum|clip.*|z_?loss.*|label_?smoothing|vocab.*|tokeni[sz]er"
)
# Names of columns that may differ between replicates: where, when and how fast they ran, and what
# they scored. The last word of a name decides: `state` is not a setting, `state_size` is.
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
    r"((training|train|model|exp|wandb)_?)?(run|exp|experiment|trial|job|model|training|wandb|config|hyper)"
    r"_?(id|uid|name|path|no|key|label)?|(display_?)?name|u?u?id"
)
_STEP = re.compile(
    r"_?(global_?|train_?)?(step|steps|iter|iters|iteration|iterations|checkpoint|ckpt|update|updates)"
)
# Names of columns with the amount of data that a run has seen, in which its checkpoints differ.
_SEEN = re.compile(
    r"(num_?|n_?|train(ing)?_?|total_?)?(tokens?|samples?|examples?|sequences?|epochs?)(_?(seen|trained|processed|total|count))?"
)
_LABELS = frozenset(
    {"size", "label", "scale", "family", "protocol", "seed", "corpus", "dataset", "data", "device"}
)
_MORE = 1.1  # factor between the data of two checkpoints; less is a run that ended early
_HISTORY = 6  # rows of one size at equal steps that are taken as checkpoints of one run
_EVEN = 0.05  # largest deviation of a step from the median one
_RECURRING = 0.5  # largest share of distinct values in a column of settings


def key(table: Table, columns: Sequence[str]) -> pd.Series:
    """A label for each row: its values in these columns."""
    parts = [table.texts(column, "") for column in columns]
    return pd.Series(
        [", ".join(row) for row in zip(*parts, strict=True)], index=table.frame.index, dtype=object
    )


def last_rows(table: Table, run: Sequence[str], step: str) -> tuple[Table, pd.Series]:
    """The last row of every run, and its step. Rows that agree in the columns `run` are one run.

    Raises:
      InputError: two rows of a run have the same step.
    """
    steps = table.wholes(step)
    at = pd.DataFrame({"run": key(table, run), "step": steps})
    twice = at.duplicated()
    if twice.any():
        row = twice.index[twice][0]
        before = at.index[(at == at.loc[row]).all(axis=1)][0]
        where = f"there twice at {step} {steps[row]}"
        if len(run) > 1:
            what = (
                f"{', '.join(run)} are {where}: runs or checkpoints? Name the run or its seed "
                f"({table.row(before)})"
            )
        else:
            what = (
                f"{run[0]} {at['run'][row]!r} is {where} ({table.row(before)} as well): one name "
                "for two runs?"
            )
        raise InputError(f"{table.path}: {table.row(row)}: {what}")
    last = (
        at.sort_values("step", kind="stable").groupby("run", sort=False).tail(1).sort_index().index
    )
    return table.take(last), steps[last]


def one_name_one_run(table: Table, run: str, same: Sequence[str]) -> None:
    """Refuses a name shared by two runs: its rows differ in what a run has only one of."""
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
    """A warning that names the runs whose last step is before that of other runs of their cell."""
    most = steps.groupby(cell).transform("max")
    early = steps[steps < most]
    if early.empty:
        return []
    named = [f"{names[row]} (step {steps[row]} of {most[row]})" for row in early.index]
    shown = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
    return [
        f"{len(named)} runs end before the others of their cell, and are averaged with them: "
        f"{shown}."
    ]


def refuse_settings(
    table: Table, cell: pd.Series, known: Collection[str], choose: str, steps: str = ""
) -> None:
    """Refuses rows of one cell that differ in a setting, since they are not replicates.

    Args:
      table: one row per run.
      cell: the label of each row's cell.
      known: columns that already have a meaning, or that the user declared not to be settings.
      choose: options that give the column a meaning, with {column} for its name; empty if the
        command has none.
      steps: the option that makes rows of a cell checkpoints of one run, if the command has one.

    Raises:
      InputError: names the column, its values and the options.
    """
    if not cell.duplicated().any():
        return
    for column in map(str, table.frame.columns):
        plain = _plain(column)
        progress = bool(_STEP.fullmatch(plain)) or _is_seen(table, column, cell)
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
            ways = [f"--where {column}={here.iloc[0]}", choose.format(column=column)]
            how = ", ".join([*filter(None, ways), f"or --ignore {column}"])
            how = (
                f"{steps} {column} if they are checkpoints of one run, {how}"
                if progress and steps
                else how
            )
            raise InputError(
                f"{table.path}: {both} but differ in {column} ({len(distinct)} values: {shown}), "
                "so they are not "
                f"replicates: choose with {how} if it is not a setting"
            )


def _is_seen(table: Table, column: str, cell: pd.Series) -> bool:
    """Whether a column is an amount of data in which the rows of most cells differ."""
    if not _SEEN.fullmatch(_plain(column)):
        return False
    values = pd.Series([entries.number(v) for v in table.frame[column]], cell.index, dtype=float)
    parts = values.groupby(cell)
    several = parts.size() > 1
    return bool(several.any() and (parts.max() > _MORE * parts.min())[several].mean() > 0.5)


def histories(run: pd.Series, data: pd.Series) -> bool:
    """Whether rows look like checkpoints: most are at equal steps in the amount of data.

    Runs of their own are planned at powers of a number, or at equal compute; checkpoints are
    written every so many steps.

    Args:
      run: what rows of one run have in common, such as their group and number of parameters.
      data: the amount of data of each row.
    """
    even = 0
    for _, part in data.groupby(run):
        steps = pd.Series(sorted(set(part))).diff().dropna()
        if len(steps) + 1 >= _HISTORY:
            usual = steps.median()
            # A checkpoint may be missing, and the first may be anywhere.
            even += len(part) * (((steps - usual).abs() <= _EVEN * usual).mean() > 0.8)
    return even > 0.5 * len(data)


def _is_result(plain: str) -> bool:
    """Whether the name of a column shows that it is not a setting."""
    words = [word for word in plain.split("_") if word]
    while len(words) > 1 and _OF_WHAT.fullmatch(words[-1]):
        words.pop()
    return not words or any(kind.fullmatch(words[-1]) for kind in (_CIRCUMSTANCE, _OUTCOME))


def _shown(value: object) -> str:
    return "" if entries.is_missing(value) else entries.text(value)


def run_column(
    table: Table, used: Collection[str], size: pd.Series, data: pd.Series
) -> tuple[str, str]:
    """Finds the column that says which rows are checkpoints of one run.

    Rows of one run share their noise. The column is recognised by its name, or by its values: they
    repeat, each has one model and a different amount of data in every row, and the table has steps
    or several runs of one size.

    Args:
      table: the rows.
      used: columns that have another meaning.
      size: what all rows of a run have in common; constant if unknown.
      data: what differs between the rows of a run.

    Returns:
      The column and a warning about it; each may be empty.
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
    several = data.groupby(size).nunique()
    repeated = size.nunique() > 1 and (several > 1).any()
    if not doubt and repeated and (steps or several.median() >= _HISTORY):
        doubt = (
            f"rows of one size are at {several.max()} steps or amounts of data: if they are "
            "checkpoints of one run, name it with --cluster; --cluster none if they are not"
        )
    return "", doubt


def _plain(name: str) -> str:
    return re.sub(r"[ ./-]+", "_", name.strip().lower())

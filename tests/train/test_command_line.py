"""What the three command lines share.

Repeated list options, ranges, one line for every error, closed pipes.
"""

import dataclasses
import errno
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import tyro

import arch_zoo.__main__ as zoo
import eval.__main__ as evaluation
import train.__main__ as training
from arch_zoo import command_line as shared
from train import command_line, records
from train.ranges import Count
from train.records import InputError


@dataclasses.dataclass(frozen=True)
class Inner:
    where: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Verb:
    table: tyro.conf.Positional[str]
    at_place: tuple[str, ...] = ("x",)
    numbers: tuple[float, ...] = ()
    count: Count = 1
    form: command_line.Format = "table"
    option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    inner: typing.Annotated[Inner, tyro.conf.arg(name="")] = Inner()


def parse(*arguments):
    return command_line.parse(["verb", *arguments], {"verb": Verb, "other": Inner}, "prog", None)


@pytest.mark.parametrize(
    ("typed", "at"),
    [
        ("t", ("x",)),
        ("t --at-place a", ("a",)),
        ("t --at-place a b", ("a", "b")),
        ("t --at-place a --at-place b", ("a", "b")),
        ("t --at-place=a --count 2 --at_place b c --at-place=d", ("a", "b", "c", "d")),
        ("t --at-place a a --at-place a", ("a", "a", "a")),
        ("--at-place a --at-place b t", ("a", "b")),
        ("t --at-place=-a --at-place b", ("-a", "b")),
        ("t --at-place N=1,D=2 --at-place N=3,D=4", ("N=1,D=2", "N=3,D=4")),
        ("t --at-place", ()),
    ],
)
def test_a_list_option_given_twice_appends(typed, at):
    verb = parse(*typed.split())
    assert verb.at_place == at and verb.table == "t"


def test_negative_numbers_are_values_and_nested_lists_append_as_well():
    verb = parse(
        "t", "--numbers", "-1", "-2e5", "--where", "a=1", "--numbers", "-inf", "--where", "b=2"
    )
    assert verb.numbers == (-1, -2e5, -float("inf")) and verb.inner.where == ("a=1", "b=2")


def test_options_that_append_by_themselves_are_left_alone():
    assert parse("t", "--option=--time=1", "--option=--gres=gpu:8").option == (
        "--time=1",
        "--gres=gpu:8",
    )


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("t --count 0", "count = 0 must be at least 1"),
        ("t --count many", "--count: 'many' is not a whole number"),
        ("t --count", "--count: a value is missing; see prog verb --help"),
        ("t --colour red", "Unrecognized options: --colour, red; see prog verb --help"),
        ("t --cuont 2", "Unrecognized options: --cuont, 2; did you mean --count?"),
        ("", "Missing: table (STR); see prog verb --help"),
        ("--colour x", "table: a value is missing; see prog verb --help"),
        ("t --form x", "--form: 'x' is not one of table, csv, json"),
        ("t --numbers 1 x", "--numbers: cannot read '1', 'x'"),
    ],
)
def test_a_usage_error_is_one_line(typed, message):
    with pytest.raises(InputError) as error:
        parse(*typed.split())
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "a verb is missing: one of verb, other; see prog --help"),
        ("evrb", "Unrecognized options: evrb; did you mean verb?; see prog --help"),
        ("x", "Unrecognized options: x; the verbs are verb, other; see prog --help"),
        ("--count 2", "Unrecognized options: --count, 2; the verbs are verb, other"),
    ],
)
def test_the_error_about_a_wrong_verb_lists_the_verbs(typed, message):
    with pytest.raises(InputError) as error:
        command_line.parse(typed.split(), {"verb": Verb, "other": Inner}, "prog", None)
    assert message in str(error.value)


def test_a_missing_and_a_mistyped_option_are_reported_together():
    message = "Missing: --at; Unrecognized options: --ta, N=1; did you mean --at?; see"
    with pytest.raises(InputError) as error:
        evaluation.parse(["predict", "t.csv", "--ta", "N=1"])
    assert str(error.value).startswith(message)


@dataclasses.dataclass(frozen=True)
class Picky:
    count: int = 1

    def __post_init__(self):
        raise ValueError("count: never right.")


def test_what_a_verb_refuses_itself_and_what_tyro_may_add_are_one_line_as_well():
    with pytest.raises(InputError, match="^count: never right; see prog picky --help$"):
        command_line.parse(["picky"], {"picky": Picky, "other": Inner}, "prog", None)
    event = shared.parse_errors.MutexConflict("prog", *[None] * 2, "--a", "--b")  # pyright: ignore
    assert shared._message(event, ()) == "these options cannot be combined (MutexConflict)"


def test_every_format_is_of_one_vocabulary():
    words = set(typing.get_args(command_line.Format))
    for kinds in (zoo.VERBS, training.VERBS, evaluation._verbs("")):
        for kind in kinds.values():
            hint = typing.get_type_hints(kind).get("format")
            assert hint is None or {"table", "json"} <= set(typing.get_args(hint)) <= words


def lists(kinds):
    return [
        (name, option)
        for name, kind in kinds.items()
        for option, is_list in shared._options(kind)
        if is_list
    ]


TRAINING = lists(training.VERBS)
EVALUATION = lists(evaluation._verbs(""))


def test_the_lists_that_the_issue_names_are_known():
    assert {option for _, option in TRAINING} >= {
        "--set",
        "--text",
        "--tasks",
        "--cells",
        "--modules",
    }
    assert {option for _, option in EVALUATION} >= {
        "--where",
        "--at",
        "--budget",
        "--fix",
        "--downstream",
        "--pairs",
    }


NEEDED = {
    "predict": ["--at", "N=1,D=1"],
    "allocate": ["--budget", "1"],
    "chain": ["--at", "N=1,D=1"],
    "rank-heads": ["runs/a"],
    "generate": ["runs/a"],
    "evaluate": ["runs/a"],
    "export": ["runs/a", "--out", "out"],
    "import": ["folder", "--out", "out"],
}
NUMBERS = {
    "budget": float,
    "off": float,
    "losses": float,
    "rates": float,
    "ranks": int,
    "multiples": int,
    "dims": int,
}


EVERY = [*(("train", *pair) for pair in TRAINING), *(("eval", *pair) for pair in EVALUATION)]


@pytest.mark.parametrize(("room", "verb", "option"), EVERY)
def test_every_list_option_of_every_command_appends(room, verb, option):
    field = option.removeprefix("--").replace("-", "_")
    two = {
        "text": ["a", "b"],
        "tasks": ["python", "glue"],
        "pairs": ["FU", "PU"],
        "links": ["loglog", "semilog"],
    }
    values = two.get(field, ["1", "2"] if field in NUMBERS else ["a=1", "b=2"])
    arguments = [verb, *(["t.csv"] if room == "eval" else [])]
    needed = NEEDED.get(verb, [])
    arguments += needed if option not in needed else []
    if room == "train":
        found = training.parse([*arguments, option, values[0], option, values[1]])
    else:
        found = evaluation.parse([*arguments, option, values[0], option, values[1]])
    taken = getattr(found if hasattr(found, field) else found.columns, field)
    assert [str(value) for value in taken] == (
        [str(NUMBERS[field](v)) for v in values] if field in NUMBERS else values
    )


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("a key"), 2, "error: a key\n"),
        (InputError("two\nlines \x1b[31mred"), 2, "error: two lines  [31mred\n"),
        (
            OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x"),
            2,
            "error: 'x': File name too long\n",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"),
            1,
            "error: 'x': No space left on device\n",
        ),
        (MemoryError(), 2, "error: out of memory\n"),
        (KeyboardInterrupt(), 75, "stopped\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_every_end_has_its_exit_code_and_one_line(capsys, monkeypatch, error, code, said):
    monkeypatch.setattr(shared, "_close_stdout", lambda: None)

    def command():
        raise error

    assert command_line.run(command) == code
    assert capsys.readouterr().err == said


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["| true", ">&-"])
@pytest.mark.parametrize(
    "command", ["train --help", "train study --help", "eval --help", "arch_zoo --help"]
)
def test_a_closed_standard_output_is_no_error(command, ending):
    """The pipe is closed before anything is written, or there is no standard output at all."""
    shell = f"set -o pipefail; sleep 0.1; {sys.executable} -m {command} {ending}"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0 and done.stderr == ""


def test_a_finished_stage_is_summed_up_in_one_line(tmp_path):
    row = {"stage": "pretrain", "task": "corpus", "split": "validation", "n": 8, "stderr": None}
    records.append_jsonl(
        tmp_path / "evals.jsonl",
        [
            {**row, "step": 6, "metric": "nll", "value": 4.5},
            {**row, "step": 12, "metric": "nll", "value": 3.71234},
            {**row, "step": 12, "metric": "perplexity", "value": 40.9},
            {**row, "step": 12, "stage": "finetune", "metric": "score", "task": "rte", "value": 61},
            {
                **row,
                "step": 12,
                "stage": "finetune",
                "metric": "score",
                "task": "cb",
                "value": None,
            },
        ],
    )
    assert training._result(tmp_path, "pretrain") == f"{tmp_path.name} pretrain: nll 3.712"
    assert training._result(tmp_path, "finetune") == f"{tmp_path.name} finetune: rte 61"


def test_a_size_of_decoder_only_models_is_named_as_one(capsys):
    for options, said in (
        ([], "a size of decoder-only models"),
        (["--family", "decoder_only"], ""),
    ):
        size = ["show", "transformer", "--size", "pythia_14m-NL1", "--length", "8"]
        assert zoo.main([*size, *options]) == 0
        assert said in capsys.readouterr().err if said else not capsys.readouterr().err

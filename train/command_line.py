"""The command lines of the trainer and the analysis: those of `arch_zoo` plus checked ranges."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from arch_zoo import command_line
from arch_zoo.command_line import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_STOPPED,
    Format,
    TableOrJson,
    one_line,
)
from train import ranges
from train.records import InputError

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_FAILED",
    "EXIT_STOPPED",
    "Format",
    "TableOrJson",
    "one_line",
    "parse",
    "run",
]


def parse(
    arguments: Sequence[str], verbs: Mapping[str, type], prog: str, description: str | None
) -> Any:
    """Parses a command line as `arch_zoo.command_line.parse` does, and checks all ranges.

    Raises:
      InputError: there is no such verb, or an option is unknown, missing, of the wrong type or out
        of range.
    """
    try:
        found = command_line.parse(arguments, verbs, prog, description)
    except command_line.UsageError as error:
        raise InputError(str(error)) from None
    ranges.check(found)
    return found


def run(
    command: Callable[[], int | None], bad_input: tuple[type[Exception], ...] = (InputError,)
) -> int:
    """Runs a command and turns any error into an exit code and one line on standard error."""
    return command_line.run(command, bad_input)

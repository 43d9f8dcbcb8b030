"""What the commands of the trainer and of the analysis share: how they are parsed, and how they end.

A verb is a dataclass whose fields are its options. Exit codes: 0 done; 1 a run failed; 2 bad input,
told in one line; 75 stopped by SIGTERM or Ctrl-C.
"""

import contextlib
import dataclasses
import errno
import io
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Union

import tyro

from train import ranges
from train.records import InputError

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 1, 2, 75

_BAD_PATH = {
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def parse(
    arguments: Sequence[str], verbs: Mapping[str, type], prog: str, description: str | None
) -> Any:
    """The verb that was typed, an instance of its class.

    A list option may be given several times and takes several values each time, all in the order
    typed.

    Raises:
      InputError: what was typed is no verb, or one of its options is unknown, missing, of a wrong
        type or out of range.
    """
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in verbs.items())
    if arguments and arguments[0] in verbs:
        arguments = [arguments[0], *_joined(arguments[1:], set(_list_options(verbs[arguments[0]])))]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = tyro.cli(
                tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Union[kinds]]],  # noqa: UP007  # pyright: ignore  made at run time
                args=list(arguments),
                prog=prog,
                description=description,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_message(said.getvalue())}; see {prog} --help") from None
    ranges.check(found)
    return found


def _list_options(kind: type) -> Iterable[str]:
    """The options of a verb that take any number of values, as they are typed; tyro itself appends the others."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        appends = False
        while typing.get_origin(hint) is Annotated:
            hint, *extras = typing.get_args(hint)
            appends |= tyro.conf.UseAppendAction in extras
        if dataclasses.is_dataclass(hint):
            yield from _list_options(typing.cast(type, hint))
        elif typing.get_args(hint)[1:] == (...,) and not appends:
            yield f"--{name.replace('_', '-')}"


def _joined(arguments: Sequence[str], lists: set[str]) -> list[str]:
    """The arguments with each list option in its last place alone, all of its values behind it.

    tyro, as argparse, forgets the values of an option when it meets it again.
    """
    groups: list[tuple[str, list[str]]] = [("", [])]
    for argument in arguments:
        name, equals, value = argument.partition("=")
        name = name.replace("_", "-")
        if name in lists:
            groups.append((name, [value] if equals else []))
        elif _is_option(argument):
            groups.append(("", [argument]))
        else:
            groups[-1][1].append(argument)
    last = {name: place for place, (name, _) in enumerate(groups)}
    out = []
    for place, (name, values) in enumerate(groups):
        if not name:
            out += values
        elif last[name] == place:
            first, *rest = [
                value for other, values in groups if other == name for value in values
            ] or [None]
            out += [name] if first is None else [f"{name}={first}", *rest]
    return out


def _is_option(argument: str) -> bool:
    """Whether an argument is an option rather than a value, such as a negative number."""
    return (
        argument.startswith("-") and argument.lstrip("-")[:1].isalpha() and not _is_number(argument)
    )


def _is_number(argument: str) -> bool:
    try:
        float(argument)
    except ValueError:
        return False
    return True


def _message(said: str) -> str:
    """What tyro says of an error, without the box that it draws around it."""
    lines = [line.strip("│╭╮╰╯─ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()]
    text = " ".join(
        [line for line in lines if line.strip("-")][1:]
    )  # the first line is the title of the box
    text = text.split(" For full helptext")[0].split(" Argument helptext")[0]
    text = re.sub(
        r"^Error parsing \w+: ", "", text
    )  # what a verb itself has found wrong with its options
    return re.sub(r"^(Missing from [^:]+: \S+).*", r"\1", text).rstrip(".")


def run(
    command: Callable[[], int | None], bad_input: tuple[type[Exception], ...] = (InputError,)
) -> int:
    """Runs a command; whatever ends it becomes an exit code and one line on standard error.

    Args:
      command: returns the exit code, or None for 0.
      bad_input: what is raised for something that the user got wrong.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called, as with `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  until the process ends
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except bad_input as error:
        return _end(EXIT_BAD_INPUT, str(error))
    except BrokenPipeError:  # the reader of a pipe has seen enough
        _close_stdout()
        return 0
    except KeyboardInterrupt:
        return _end(EXIT_STOPPED, "stopped", "")
    except MemoryError as error:
        return _end(EXIT_BAD_INPUT, f"out of memory: {error}" if str(error) else "out of memory")
    except OSError as error:  # a name that is too long, a file of somebody else's; or a full disk, which is no input
        place = f"{str(error.filename)!r}: " if error.filename else ""
        code = EXIT_BAD_INPUT if error.errno in _BAD_PATH else EXIT_FAILED
        return _end(code, f"{place}{error.strerror or error}")


def _end(code: int, message: str, prefix: str = "error: ") -> int:
    print(f"{prefix}{one_line(message)}", file=sys.stderr)
    return code


def one_line(text: str) -> str:
    """A message as one line, without what would move a terminal's cursor or change its colours."""
    return _CONTROL.sub(" ", text).strip()


def _close_stdout() -> None:
    """Python flushes standard output once more when it ends; into a closed pipe that would be an error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

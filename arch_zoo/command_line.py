"""The parsing and the exit codes that the command lines of all three programs share.

A verb is a dataclass: its fields are the options, and its docstring is the help. Exit codes:
0 done; 1 a run failed; 2 bad input, explained in one line; 75 stopped by SIGTERM or Ctrl-C.
"""

import contextlib
import dataclasses
import difflib
import errno
import json
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

import tyro

# This module is private to tyro, which is why pyproject.toml bounds tyro's version. Without it, the
# parts of an error would have to be read from the box that tyro draws on the terminal.
from tyro import _errors as parse_errors

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 1, 2, 75

Format = Literal["table", "csv", "json"]  # for a person, for a spreadsheet, for a program
TableOrJson = Literal["table", "json"]  # for answers that do not fit into one table

# Errors of the system that mean a bad path, which the user can correct. Others are failures.
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


class UsageError(ValueError):
    """The command line cannot be parsed; the message is one line that names the option or verb."""


def parse(
    arguments: Sequence[str], verbs: Mapping[str, type], prog: str, description: str | None
) -> Any:
    """Parses a command line: a verb, then its options.

    A list option may be given several times, each time with several values; they are kept in the
    order in which they were typed.

    Args:
      arguments: the words after the program's name.
      verbs: the class of each verb, by name.
      prog: the program's name in help and messages.
      description: the text at the top of the program's help.

    Returns:
      An instance of the verb's class.

    Raises:
      UsageError: there is no such verb, or an option is unknown, missing or of the wrong type.
    """
    verb = arguments[0] if arguments and arguments[0] in verbs else None
    options = dict(_options(verbs[verb])) if verb else {}
    if verb:
        lists = {name for name, is_list in options.items() if is_list}
        arguments = [verb, *_joined(arguments[1:], lists)]

    def refuse(event: parse_errors.ParseErrorEvent) -> None:
        said = _message(event, verbs if verb is None else options)
        raise UsageError(f"{said}; see {prog} {f'{verb} ' if verb else ''}--help")

    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in verbs.items())
    with parse_errors.on_parse_error(refuse):
        return tyro.cli(
            tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[Union[kinds]]],  # noqa: UP007  # pyright: ignore  made at run time
            args=list(arguments),
            prog=prog,
            description=description,
        )


def _message(event: parse_errors.ParseErrorEvent, known: Iterable[str]) -> str:
    """The message for an error of the parser, in one line.

    Args:
      event: the error, as tyro describes it.
      known: the verbs if none was typed, otherwise the options of the verb.
    """
    match event:
        case parse_errors.MissingSubcommand():
            return f"a verb is missing: one of {', '.join(known)}"
        case parse_errors.UnrecognizedArgs(tokens=tokens):
            return _unrecognized(tokens, known)
        case parse_errors.MissingArgs(missing_arguments=missing, unrecognized_tokens=tokens):
            said = f"Missing: {', '.join(_name(context.arg) for context in missing)}"
            return f"{said}; {_unrecognized(tokens, known)}" if tokens else said
        case parse_errors.InvalidChoice(argument=argument, value=value, choices=choices):
            return f"{argument.display_name()}: {value!r} is not one of {', '.join(choices)}"
        case parse_errors.BadValue(argument=argument, reason="too_few_values"):
            return f"{argument.display_name()}: a value is missing"
        case parse_errors.InstantiationFailure(message=message, argument=argument):
            # Without an argument, the error was raised by the `__post_init__` of the verb.
            name = f"{argument.display_name()}: " if argument else ""
            return f"{name}{_plain(message)}".rstrip(".")
        case _:
            return f"these options cannot be combined ({type(event).__name__})"


def _plain(message: str) -> str:
    """What Python says of text that is no number, in words of the user's."""
    for pattern, kind in (
        (r"invalid literal for int\(\) with base 10: (.+)", "a whole number"),
        (r"could not convert string to float: (.+)", "a number"),
    ):
        if match := re.fullmatch(pattern, message):
            return f"{match[1]} is not {kind}"
    lists = re.fullmatch(r"Could not find valid parse for arguments: \[(.+)\]", message)
    return f"cannot read {lists[1]}" if lists else message


def _name(argument: Any) -> str:
    """An option as it is typed, or a positional argument's name and placeholder."""
    name = argument.display_name()
    return f"{name} ({argument.lowered.metavar})" if argument.is_positional() else name


def _unrecognized(tokens: Sequence[str], known: Iterable[str]) -> str:
    """The message for unknown words: with the closest known name, or else with all verbs."""
    said, names = f"Unrecognized options: {', '.join(tokens)}", list(known)
    typed = tokens[0].partition("=")[0].replace("_", "-")
    if close := difflib.get_close_matches(typed, names, n=1, cutoff=0.7):
        return f"{said}; did you mean {close[0]}?"
    are_verbs = not any(name.startswith("--") for name in names)
    return f"{said}; the verbs are {', '.join(names)}" if names and are_verbs else said


def _options(kind: type) -> Iterator[tuple[str, bool]]:
    """The options of a verb, and whether tyro drops their earlier values if they are repeated.

    It does so for options that take any number of values and are not marked `UseAppendAction`.
    """
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        markers: list[Any] = []
        while typing.get_origin(hint) is Annotated:
            hint, *extras = typing.get_args(hint)
            markers += extras
        if dataclasses.is_dataclass(hint):
            yield from _options(typing.cast(type, hint))
        elif tyro.conf.Positional not in markers:
            is_list = typing.get_args(hint)[1:] == (...,)
            option = name.replace("_", "-")
            yield f"--{option}", is_list and tyro.conf.UseAppendAction not in markers
            if hint is bool:
                yield f"--no-{option}", False


def _joined(arguments: Sequence[str], lists: set[str]) -> list[str]:
    """The arguments with repeated list options merged, at the place of their last occurrence.

    If an option is repeated, tyro, like argparse, keeps only the values of the last one.
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
            # With "=", a first value that starts with a dash is not taken for an option.
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


def run(command: Callable[[], int | None], bad_input: tuple[type[Exception], ...]) -> int:
    """Runs a command and turns any error into an exit code and one line on standard error.

    Args:
      command: returns the exit code, or None for 0.
      bad_input: the exceptions that mean a mistake of the user.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the caller closed it, as with `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  until the process ends
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except bad_input as error:
        return _end(EXIT_BAD_INPUT, str(error))
    except BrokenPipeError:  # the reader of a pipe has closed it, as `head` does
        _close_stdout()
        return 0
    except KeyboardInterrupt:
        return _end(EXIT_STOPPED, "stopped", "")
    except MemoryError as error:
        return _end(EXIT_BAD_INPUT, f"out of memory: {error}" if str(error) else "out of memory")
    except OSError as error:  # bad input, such as a path that is too long; or a full disk
        place = f"{str(error.filename)!r}: " if error.filename else ""
        code = EXIT_BAD_INPUT if error.errno in _BAD_PATH else EXIT_FAILED
        return _end(code, f"{place}{error.strerror or error}")


def _end(code: int, message: str, prefix: str = "error: ") -> int:
    print(f"{prefix}{one_line(message)}", file=sys.stderr)
    return code


def parse_setting(setting: str) -> tuple[str, Any]:
    """Splits KEY=VALUE; a value that is not JSON is text.

    Raises:
      UsageError: there is no equals sign.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"set: {setting!r} is not KEY=VALUE")
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def one_line(text: str) -> str:
    """A message as one line, without characters that control a terminal (cursor, colours)."""
    return _CONTROL.sub(" ", text).strip()


def _close_stdout() -> None:
    """Avoids an error at exit, when Python flushes standard output into the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""The verb `settings`: every key that `--set` takes, its value in a preset, and what it means."""

import dataclasses
import json
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import tyro

from train.command_line import TableOrJson
from train.records import InputError
from train.study.config import Family

_WIDTH = 100  # columns of a line


class Setting(NamedTuple):
    """One key.

    Attributes:
      key: as `--set` takes it.
      value: what it is without `--set`, as JSON.
      choices: the values that are allowed, if they are few; else empty.
      meaning: what it sets.
    """

    key: str
    value: str
    choices: tuple[str, ...]
    meaning: str


@dataclasses.dataclass(frozen=True)
class SettingsVerb:
    """Lists what `--set` can change: each key, its value in a preset, and what it means.

    Attributes:
      pattern: only keys and meanings with this text; empty lists all.
      architecture: the architecture whose options are listed.
      size: the size whose values are shown.
      family: encoder_decoder, or decoder_only for a language model.
      preset: the settings whose values are shown: a function of `configs/presets.py`.
      format: table for a person, json for a program.
    """

    pattern: tyro.conf.Positional[str] = ""
    architecture: str = "transformer"
    size: str = "nano"
    family: Family = "encoder_decoder"
    preset: str = "cpu"
    format: TableOrJson = "table"

    def run(self) -> int:
        """Prints the settings; returns the exit code."""
        found = [
            one
            for one in settings(self)
            if self.pattern.lower() in f"{one.key} {one.meaning}".lower()
        ]
        if not found:
            raise InputError(f"pattern = {self.pattern!r}: no setting has it in its key or meaning")
        if self.format == "json":
            print(json.dumps([one._asdict() for one in found], indent=2))
            return 0
        for one in found:
            allowed = f" ({', '.join(one.choices)})" if one.choices else ""
            print(f"{one.key}={one.value}{allowed}")
            print(
                textwrap.fill(one.meaning, _WIDTH, initial_indent="    ", subsequent_indent="    ")
            )
        return 0


def settings(verb: SettingsVerb) -> Iterator[Setting]:
    """Every setting of a run of the preset.

    Raises:
      InputError: there is no such preset.
      ConfigError: there is no such architecture or size.
    """
    from configs import presets
    from train.study import declare

    config = presets.named(verb.preset)(verb.architecture, verb.size, 0, verb.family)
    for one in _of_class(config, ""):
        if one.key not in ("architecture", "size", "family", "protocol", "seed", "study", "model"):
            yield one
    model = declare.model(config, declare.T5_VOCABULARY)
    for one in [*_of_class(model.architecture, "model."), *_of_class(model, "model.")]:
        name = one.key.removeprefix("model.")
        if name not in (*declare.NOT_OF_THE_MODEL, "max_input_length", "max_target_length"):
            yield one


def _of_class(config: Any, prefix: str) -> Iterator[Setting]:
    import docstring_parser

    documented: dict[str, str] = {}
    for kind in reversed(type(config).__mro__):
        if vars(kind).get("__doc__"):
            for one in docstring_parser.parse(str(kind.__doc__)).params:
                documented[one.arg_name] = " ".join((one.description or "").split())
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            if not prefix.startswith("model"):
                yield from _of_class(value, f"{key}.")
            continue
        choices: tuple[str, ...] = ()
        if typing.get_origin(hints[field.name]) is Literal:
            choices = tuple(map(str, typing.get_args(hints[field.name])))
        shown = value if isinstance(value, str) else json.dumps(value, default=list)
        yield Setting(key, shown, choices, documented.get(field.name, ""))

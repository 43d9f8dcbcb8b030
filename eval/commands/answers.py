"""Prints answers: as text for people, verdict and warnings first, or as JSON for programs."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from eval.data.neutral import finite, printable
from train.command_line import TableOrJson

Answer = dict[str, Any]


def records(frame: pd.DataFrame) -> list[Answer]:
    """The rows of a table, each as a dictionary."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def show(answer: Answer, format: TableOrJson) -> int:
    """Prints an answer for a person (`table`) or for a program (`json`); returns exit code 0."""
    answer = finite(answer)
    lines = [json.dumps(answer, indent=2)] if format == "json" else map(printable, _text(answer))
    print("\n".join(lines))
    return 0


def _text(answer: Mapping[str, Any], indent: str = "") -> list[str]:
    """The lines of an answer: verdict, warnings, then one line per value, one table per list."""
    lines = [f"{indent}{'verdict':<15} {answer['verdict']}"] if "verdict" in answer else []
    lines += [f"{indent}WARNING: {line}" for line in answer.get("warnings", [])]
    for key, value in answer.items():
        if key in ("warnings", "verdict") or key.endswith("_interval"):
            continue
        span = answer.get(f"{key}_interval")
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}", *_text(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            rows = [list(value[0]), *([_cell(cell) for cell in row.values()] for row in value)]
            widths = [max(11, *map(len, column)) for column in zip(*rows, strict=True)]
            lines += [f"{indent}{key}"] + [
                indent
                + "  "
                + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
                for row in rows
            ]
        else:
            tail = f"  [{_cell(span[0])}, {_cell(span[1])}]" if span else ""
            lines.append(f"{indent}{key:<15} {_cell(value)}{tail}")
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "-"
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)

"""The runs that a study declares, held against those that it has."""

from pathlib import Path
from typing import Any

from train import records
from train.records import InputError

MANIFEST = "study.json"  # what a launcher wrote of the study: the runs that it declares


def absent(path: Path, there: set[str]) -> list[str]:
    """One warning that names the runs which the study's manifest declares and which have no directory.

    Raises:
      InputError: the manifest is not one.
    """
    manifest = records.read_json(path / MANIFEST, missing={})
    cells = manifest.get("cells", [])
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise InputError(f"{path / MANIFEST}: cells is not a list of objects")
    names = ["-".join(_declared(cell, path / MANIFEST)) for cell in cells]
    gone = [name for name in names if name not in there]
    if not gone:
        return []
    named = list(zip([cell["architecture"] for cell in cells], names, strict=True))
    whole = sorted({name for name, _ in named} - {name for name, run in named if run in there})
    none = f" Of {', '.join(whole)} there is no run at all." if whole else ""
    count = f"{len(gone)} of the {len(names)} runs that {MANIFEST} declares are not in {path}"
    shown = ", ".join(gone[:12]) + (f" and {len(gone) - 12} more" if len(gone) > 12 else "")
    return [f"{count}, and take no part: {shown}.{none}"]


def _declared(cell: dict[str, Any], path: Path) -> list[str]:
    """The parts of a declared run's name, which its directory bears."""
    parts = [
        cell.get("architecture"),
        cell.get("size"),
        cell.get("protocol", ""),
        f"s{cell.get('seed')}",
    ]
    if not all(isinstance(part, str) for part in parts):
        raise InputError(f"{path}: a cell has no architecture, size or seed: {str(cell)[:60]!r}")
    return [part for part in parts if part]

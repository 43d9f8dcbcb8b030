"""The origin of a run: its configuration, corpus, code and machine, read from its records."""

from typing import Any

import pandas as pd

from train import records


def provenance(run_id: str, run: records.Run) -> dict[str, str]:
    """Configuration hash, corpus fingerprint, commit, device and versions of a run."""
    data = run.config.get("data")
    fingerprint = data.get("fingerprint") if isinstance(data, dict) else run.env.get("fingerprint")
    versions = run.env.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    return {
        "run_id": run_id,
        "config_hash": str(run.config.get("hash") or "not recorded"),
        "corpus_fingerprint": str(fingerprint or "not recorded"),
        "commit": str(run.env.get("git_commit") or "not recorded"),
        "device": device(run.env),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        or "not recorded",
    }


def settings(runs: list[records.Run]) -> pd.DataFrame:
    """Pretraining, finetuning and data settings: each value with its number of runs."""
    counts: dict[str, dict[str, int]] = {}
    for run in runs:
        for part in ("pretrain", "finetune", "data"):
            for key, value in _flat(part, run.config.get(part)):
                values = counts.setdefault(key, {})
                values[value] = values.get(value, 0) + 1
    rows = [(key, value, n) for key, values in counts.items() for value, n in values.items()]
    return pd.DataFrame(rows, columns=["setting", "value", "runs"])


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(f"{prefix}.{key}", item)]
    if isinstance(value, list):
        return [(prefix, ", ".join(map(str, value)))]
    return [] if value is None else [(prefix, str(value))]


def device(env: dict[str, Any]) -> str:
    """The number and kind of the devices that a run used."""
    kind, count = env.get("device") or "not recorded", env.get("devices")
    return f"{count} x {kind}" if isinstance(count, int) else str(kind)

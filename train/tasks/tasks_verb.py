"""The verb `tasks`: the downstream tasks that `prepare` can make, and the metrics of all tasks."""

import dataclasses
import inspect
import json
from typing import Any

from train.command_line import TableOrJson


@dataclasses.dataclass(frozen=True)
class TasksVerb:
    """Lists the downstream tasks that `prepare --tasks` knows, and what tasks are scored by.

    Attributes:
      format: table for a person, json for a program.
    """

    format: TableOrJson = "table"

    def run(self) -> int:
        """Prints the list; returns the exit code."""
        found = {"tasks": tasks(), "metrics": metrics()}
        if self.format == "json":
            print(json.dumps(found, indent=2))
            return 0
        print("task                  metrics              labels")
        for one in found["tasks"]:
            scored = ", ".join(one["metrics"]) if one["scored"] else "not scored"
            labels = ", ".join(one["labels"]) or "free text"
            print(f"{one['name']:21} {scored:20} {labels}")
        print("\nmetric      what it is, in percent; * also for your own tasks, NAME=FILES:METRIC")
        for one in found["metrics"]:
            print(f"{one['name'] + ('*' if one['own'] else ''):11} {one['meaning']}")
        return 0


def tasks() -> list[dict[str, Any]]:
    """Every task of the suites: name, metrics, labels, and whether it is scored."""
    from train.data.prepare_config import PrepareConfig
    from train.tasks import quiet
    from train.tasks.task_table import SUITES

    catalog, named = quiet.catalog(), {}
    for suite in SUITES:
        with quiet.discarded():
            found = catalog.downstream(PrepareConfig(tasks=(suite,)))
        named |= {one.name: one for one in found if one.name not in named}
    return [
        {
            "name": one.name,
            "metrics": one.metrics,
            "labels": one.labels,
            "scored": "validation" in one.splits,
        }
        for one in named.values()
    ]


def metrics() -> list[dict[str, Any]]:
    """Every metric: name, meaning, and whether a table of the user's can have it."""
    from train.tasks.metrics import METRICS
    from train.tasks.task_table import ALLOWED

    return [
        {
            "name": name,
            "meaning": (inspect.getdoc(metric) or "").splitlines()[0],
            "own": name in ALLOWED,
        }
        for name, metric in METRICS.items()
    ]

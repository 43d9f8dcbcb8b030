"""The verb `probes`: what each probe is, its settings, and an example of it."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import tyro

from train.ranges import CountOrZero

if TYPE_CHECKING:
    from train.probes import Probe

_WIDTH = 96  # columns of an example


@dataclasses.dataclass(frozen=True)
class ProbesVerb:
    """Lists the probes, or explains one and shows an example of it.

    Attributes:
      name: a probe; empty lists all.
      set: settings of the probe as KEY=VALUE, such as pairs=2; values are JSON.
      index: the number of the example, of the training set.
    """

    name: tyro.conf.Positional[str] = ""
    set: tuple[str, ...] = ()
    index: CountOrZero = 0

    def run(self) -> int:
        """Prints the list or the probe; returns the exit code."""
        from train import probes
        from train.study.verbs import parse_settings

        if self.name:
            settings = parse_settings(self.set)
            print("\n".join(explained(probes.get({**settings, "task": self.name}), self.index)))
            return 0
        for name in probes.names():
            doc = inspect.getdoc(type(probes.get({"task": name}))) or ""
            print(f"{name:15} {doc.splitlines()[0]}")
        return 0


def explained(probe: "Probe", index: int) -> Iterator[str]:
    """The definition, the settings and an example of a probe, as lines."""
    yield f"{probe.name} ({probe.paper})"
    yield inspect.getdoc(type(probe)) or ""
    yield ""
    settings = [f"{f.name} {getattr(probe, f.name)}" for f in dataclasses.fields(probe)]
    yield f"settings: {', '.join(settings)}"
    yield (
        f"vocabulary {probe.vocab_size}, rows of {probe.length} (test: {probe.longest}), "
        f"answers {probe.answers.start} to {probe.answers.stop - 1}, chance {probe.chance:.3g} %"
    )
    yield ""
    yield from example(probe, index)


def example(probe: "Probe", index: int) -> Iterator[str]:
    """An example: what is read, and below it the answers; those that are scored have a star."""
    rows = probe.examples(0, np.array([index]))
    tokens, labels, scored = (values[0].tolist() for values in rows[:3])
    length = max(at for at, pair in enumerate(zip(tokens, labels, strict=True)) if any(pair)) + 1
    said = [
        f"{label}{'*' if star else ''}" if label else "."
        for label, star in zip(labels, scored, strict=True)
    ]
    width = max(len(str(x)) for x in (*tokens, *said))
    each = (_WIDTH - 9) // (width + 1)
    for first in range(0, length, each):
        last = min(first + each, length)
        for name, values in (("reads", tokens), ("answers", said)):
            cells = " ".join(f"{value:>{width}}" for value in values[first:last])
            yield f"{name:8} {cells}"

"""Writes `configs/studies/counts.json`.

What every model of the large presets costs, so that `plan` need not count it.

    python -m tests.train.plan.make_counts

Run it after a change of an architecture, a size or a preset; a test recounts some of them and
misses none. Models of the other presets are small and are counted when they are asked for. What was
counted of the same sources lies in `.cache` and is taken from there.
"""

from train.plan import counts, plan
from train.study import declare
from train.study.directory import load

PRESETS = ("depth", "paper", "width")


def queries() -> list[counts.Query]:
    """Everything that has to be counted."""
    found = []
    for name in PRESETS:
        declared = load(name)
        vocab = declare.PYTHON_VOCABULARY if declared.prepare else declare.T5_VOCABULARY
        found += plan.queries(declared, vocab, accelerator=declared.platform != "cpu")
    return list({query.key: query for query in found}.values())


if __name__ == "__main__":
    counts.PRESETS.unlink(missing_ok=True)
    counts.write_presets(queries())
    print(f"{counts.PRESETS}: {len(queries())} models")

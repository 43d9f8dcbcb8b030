"""Writes `configs/studies/counts.json`.

The file holds the costs of every model of the large presets, so that `plan` need not count them.

    python -m tests.train.plan.make_counts

Run it after a change of an architecture, a size or a preset; a test recounts some of the models and
checks that none is missing. Models of the other presets are small and are counted when they are
needed. Counts made by the same source code are taken from `.cache`.
"""

from train.plan import counts, plan
from train.study import declare
from train.study.directory import load

PRESETS = ("depth", "paper", "width")


def queries() -> list[counts.Query]:
    """All models that have to be counted."""
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

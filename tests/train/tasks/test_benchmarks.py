"""The official tasks, offline.

The rows are written by hand, stored by the official TFDS builders and read under their own names.
TensorFlow warns at import, and warnings are errors here, so everything that needs it runs once, in
a separate process.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.tasks import official

_ROOT = Path(__file__).resolve().parents[3]
_GOLDEN = json.loads(Path(__file__).with_name("t5_text.json").read_text(encoding="utf-8"))

_DUMP = """
import json, sys
from pathlib import Path
from tests.train.tasks import official
from train.tasks import benchmarks, seqio_tasks

data_dir = sys.argv[1]
official.write(Path(data_dir))
found = {}
suites = (benchmarks.glue, benchmarks.super_glue, benchmarks.squad_v1)
for d in [task for suite in suites for task in suite(data_dir)]:
    task = seqio_tasks.register(d)
    rows = {split: list(seqio_tasks.read(d.name, split)) for split in sorted(task.splits)}
    source = d.source.tfds_dataset
    features = source.info.features
    names = getattr(features["label"], "names", None) if "label" in features else None
    about = {"task": d.name, "labels": d.labels, "names": names, "splits": d.splits}
    found[source.name] = {**about, "rows": rows}
mixture = seqio_tasks.mixture("all_17", [f["task"] for f in found.values()], cap=2)
rates = [mixture.get_rate(task) for task in mixture.tasks]
Path(sys.argv[2]).write_text(json.dumps({"tasks": found, "rates": rates}), encoding="utf-8")
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def dump(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("dump") / "dump.json"
    run = subprocess.run(
        [sys.executable, "-c", _DUMP, str(data_dir), str(out)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_there_are_the_seventeen_tasks_of_the_study(dump):
    names = [task["task"] for task in dump["tasks"].values() if "validation" in task["splits"]]
    assert len(names) == len(set(names)) == 17
    assert (
        len([n for n in names if n.startswith("glue_")])
        == len([n for n in names if n.startswith("super_glue_")])
        == 8
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", _GOLDEN)
def test_text_is_that_of_t5(dump, name):
    task = dump["tasks"][name]
    for split, expected in _GOLDEN[name].items():
        rows = [
            row
            for row in task["rows"][split]
            if split != "train" or row.get("only") != "validation"
        ]
        assert [
            {key: row[key] for key in want} for row, want in zip(rows, expected, strict=True)
        ] == expected


@pytest.mark.slow
def test_labels_are_the_builders(dump):
    for name, task in dump["tasks"].items():
        if task["names"] and task["task"] not in (
            "super_glue_wsc",
            "dpr",
        ):  # these are answered with a noun
            assert task["labels"] == task["names"], name


@pytest.mark.slow
def test_the_mixture_is_proportional_up_to_its_cap(dump):
    sizes = [len(part["train"]) for part in official.splits().values()]
    assert sorted(dump["rates"]) == sorted(min(2, size) for size in sizes[:-1])  # all except C4


@pytest.mark.slow
def test_training_and_validation_take_the_rows_meant_for_them(dump):
    only = [row["only"] for row in dump["tasks"]["super_glue/record:1.0.2"]["rows"]["train"]]
    assert sorted(only) == ["", "", "", "train"]  # one of three queries has two answers
    assert [
        r["only"] for r in dump["tasks"]["super_glue/wsc.fixed:1.0.2"]["rows"]["validation"]
    ].count("validation") == 1

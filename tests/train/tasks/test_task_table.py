"""A user's table as a task: what is read from it, and how a bad one is refused."""

import json

import pytest

from train.data.text import text_files
from train.records import InputError
from train.tasks import scoring
from train.tasks.task_table import ALLOWED, TaskTable


def _table(path, rows, metric="accuracy"):
    file = path / "t.tsv"
    file.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return TaskTable.parse(f"task={file}:{metric}")


def _rows(*targets, n=120):
    return [("inputs", "targets"), *((f"row {i}", targets[i % len(targets)]) for i in range(n))]


def test_a_table_has_splits_and_labels(tmp_path):
    splits, labels = _table(tmp_path, _rows("yes", "no")).read()
    assert labels == ("no", "yes") and len(splits["train"]) + len(splits["validation"]) == 120
    assert 0 < len(splits["validation"]) < 25
    given = [("split", "inputs", "targets")] + [
        ("validation" if i < 7 else "train", f"r{i}", "x") for i in range(9)
    ]
    assert {split: len(rows) for split, rows in _table(tmp_path, given).read()[0].items()} == {
        "train": 2,
        "validation": 7,
    }
    assert _table(tmp_path, _rows("yes ", " yes", "no")).read()[1] == ("no", "yes")
    free = _table(tmp_path, _rows(*(str(i) for i in range(150)), n=150)).read()
    assert free[1] == ()


def test_marks_blank_lines_and_line_ends_of_other_systems_do_no_harm(tmp_path):
    lines = ["\ufeffinputs\ttargets", *(f"row {i}\ta" for i in range(120)), ""]
    (tmp_path / "t.tsv").write_bytes("\r\n".join(lines).encode())
    splits, labels = TaskTable.parse(f"task={tmp_path}/t.tsv:accuracy").read()
    assert labels == ("a",) and sum(map(len, splits.values())) == 120
    rows = "\n".join(
        json.dumps({"inputs": f"row {i}", "targets": "a", "answers": ["a", "b"]})
        for i in range(120)
    )
    (tmp_path / "t.jsonl").write_text(rows + "\n\n")
    splits, _ = TaskTable.parse(f"task={tmp_path}/t.jsonl:squad").read()
    assert all(row["answers"] == ["a", "b"] for rows in splits.values() for row in rows)


@pytest.mark.parametrize(
    ("rows", "metric", "message"),
    [
        (
            [("inputs", "target"), ("a", "b")],
            "accuracy",
            "t.tsv: row 1 has no text 'targets'; it has inputs, target",
        ),
        (
            [("inputs", "targets")],
            "accuracy",
            "no row of .*t.tsv is for train; a column 'split' can say so",
        ),
        (
            [("split", "inputs", "targets"), ("test", "a", "b")],
            "accuracy",
            "row 1: split = 'test' is not train or",
        ),
        (_rows("a", " "), "accuracy", "row 2: targets is empty"),
        (_rows("a", "b", "c"), "f1", "f1 needs two different targets, there are 'a', 'b', 'c'"),
        (
            _rows(*map(str, range(200)), n=200),
            "matthews",
            "needs at most 100 different targets, there are more",
        ),
        (_rows("1.5", "many"), "pearson", "row 2: targets = 'many' is no number"),
        (_rows("False", "True"), "multirc", "row 1 has no 'group', which multirc needs"),
        (_rows("a"), "rouge", "metric 'rouge' is not one of accuracy, f1"),
        (_rows("a"), "wsc", "metric 'wsc' is not one of"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path, rows, metric, message):
    with pytest.raises(InputError, match=message) as caught:
        _table(tmp_path, rows, metric).read()
    assert "\n" not in str(caught.value)


def test_answers_are_lists_of_texts(tmp_path):
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"inputs": "a", "targets": "b", "answers": "b"}) + "\n"
    )
    with pytest.raises(InputError, match="row 1: answers = 'b' is not a list of texts"):
        TaskTable.parse(f"task={tmp_path}/t.jsonl:squad").read()


@pytest.mark.parametrize("metric", ALLOWED)
def test_every_metric_can_score_what_its_table_gives(tmp_path, metric):
    rows = [
        ("inputs", "targets", "group"),
        *((f"row {i}", str(i % 2), f"g{i // 3}") for i in range(60)),
    ]
    table = _table(tmp_path, rows, metric)
    splits, labels = table.read()
    references = [{"target": row["targets"], **row} for row in splits["train"]]
    right = [reference["target"] for reference in references]
    assert scoring.score(table.metrics, right, references, labels)["score"].value == pytest.approx(
        100
    )
    assert scoring.majority_class(table.metrics, references, labels) < 100


@pytest.mark.parametrize(
    "name",
    [
        "text",
        "python",
        "c4",
        "glue",
        "super_glue",
        "squad",
        "dpr",
        "corpus",
        "mean",
        "Text",
        "glue_mood",
        "squad_2",
    ],
)
def test_a_name_that_stands_for_something_else_is_refused(name):
    with pytest.raises(InputError, match=f"a task of your own cannot be called '{name}'"):
        TaskTable.parse(f"{name}=t.tsv:accuracy")
    assert TaskTable.parse(f"my_{name}=t.tsv:accuracy").name == f"my_{name}"


def test_a_metric_given_twice_is_refused():
    with pytest.raises(InputError, match="a metric is given twice"):
        TaskTable.parse("t=t.tsv:accuracy,accuracy")


def test_half_an_emoji_is_replaced_and_counted(tmp_path):
    rows = [{"inputs": "half an emoji \ud83d", "targets": "no", "split": "train"}]
    rows.append(
        {"inputs": "NUL \0", "targets": "yes", "split": "validation", "answers": ["\udc00", "yes"]}
    )
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lost = text_files.Lost()
    splits, labels = TaskTable.parse(f"t={tmp_path}/t.jsonl:squad").read(lost)
    assert lost["replaced"] == 3 and labels == ("no", "yes")
    assert splits["train"][0]["inputs"] == "half an emoji \ufffd"
    assert splits["validation"][0] == {
        "inputs": "NUL \ufffd",
        "targets": "yes",
        "answers": ["\ufffd", "yes"],
    }


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.txt"])
def test_a_cell_may_be_of_any_length(tmp_path, name):
    separator = "," if name == "t.csv" else "\t"
    rows = [
        ("split", "inputs", "targets"),
        ("train", "a" * 131_073, "x"),
        ("validation", '"' + "b" * 300_000 + '"', "y"),
    ]
    (tmp_path / name).write_text("".join(separator.join(row) + "\n" for row in rows))
    splits, _ = TaskTable.parse(f"t={tmp_path}/{name}:accuracy").read()
    assert [len(rows[0]["inputs"]) for rows in splits.values()] == [131_073, 300_000]


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path):
    (tmp_path / "t.tsv").write_bytes("inputs\ttargets\na\tb\nnaïve\tb\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"t.tsv: line 3 is not UTF-8 \(byte 0xef, character 3\)"):
        TaskTable.parse(f"t={tmp_path}/t.tsv:accuracy").read()
    (tmp_path / "t.tsv").write_text("inputs\ttargets\na\tb\n", encoding="utf-16")
    with pytest.raises(InputError, match="is UTF-16"):
        TaskTable.parse(f"t={tmp_path}/t.tsv:accuracy").read()

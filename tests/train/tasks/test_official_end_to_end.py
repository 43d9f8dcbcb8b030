"""Official tasks and a user's own files, from seqio and `prepare` to training and scores."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train import tiny_study
from tests.train.tasks import official
from train import records
from train.data.corpus import open_corpus
from train.tasks import scoring

_ROOT = Path(__file__).resolve().parents[3]


def _run(*command, code=0):
    run = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == code, run.stderr[-3000:]
    return run.stderr


@pytest.fixture(scope="module")
def c4(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    _run("tests.train.tasks.official", folder / "tfds")
    given = [
        "--source",
        "c4",
        "--tasks",
        "glue",
        "super_glue",
        "squad",
        "--data-dir",
        folder / "tfds",
    ]
    log = _run("train", "prepare", "--out", folder / "corpus", *given, "--num-shards", "2")
    return open_corpus(folder / "corpus"), log


@pytest.mark.slow
def test_all_seventeen_tasks_and_c4_are_prepared(c4):
    corpus, _ = c4
    scored = [name for name, task in corpus.tasks.items() if "validation" in task.examples]
    assert corpus.name == "c4" and len(scored) == 17 and set(corpus.tasks) == {*scored, "dpr"}
    assert corpus.tasks["glue_mnli"].examples["validation"] == 2 * len(official.GLUE["mnli"]) - 1
    assert dict(corpus.tasks["dpr"].examples) == {"train": len(official.DPR)}
    pages = [corpus.decode(page) for page in _documents(corpus, "train")]
    assert sorted(page for page in pages if page) == sorted(
        row["text"] for row in official.C4[:360]
    )
    assert corpus.index["pretrain"]["train"]["duplicates"] == 0


@pytest.mark.slow
def test_perfect_answers_score_full_marks(c4):
    corpus, _ = c4
    for name, task in corpus.tasks.items():
        if name == "dpr":
            continue
        rows = corpus.examples(name, "validation").references
        references = [
            row for row in rows if row.get("answers") != []
        ]  # a query without a right answer cannot be scored
        answers = [r["answers"][0] if r.get("answers") else r["target"] for r in references]
        if name == "super_glue_wsc":
            answers = [r["target"] if r["label"] == "True" else "nobody" for r in references]
        assert scoring.score(task.metrics, answers, references, task.labels)[
            "score"
        ].value == pytest.approx(100), name
        assert 0 <= task.majority_class <= 100


@pytest.mark.slow
def test_the_trainer_trains_decodes_ranks_and_scores_all_of_them(c4, tmp_path):
    from train.run import cell

    corpus, _ = c4
    stage = dataclasses.replace(
        tiny_study.STAGE,
        steps=6,
        input_length=96,
        target_length=24,
        eval_every=3,
        eval_batch_size=4,
        scoring="both",
    )
    stages = {"pretrain": stage, "finetune": dataclasses.replace(stage, cap=2, pack=True)}
    config = dataclasses.replace(tiny_study.run("transformer"), **stages)
    assert cell.run_cell(config, corpus, tmp_path, quiet=True) == "done"
    run = records.read_run(tmp_path)
    assert all(row["loss"] > 0 for row in run.metrics)
    scored = [name for name, task in corpus.tasks.items() if "validation" in task.examples]
    ranked = {"super_glue_multirc"} | {
        n for n in scored if corpus.tasks[n].metrics in (("accuracy",), ("mnli",))
    }
    for name in scored:
        rows = {(row["metric"], row["step"]): row for row in run.evals if row["task"] == name}
        assert {
            ("score", 3),
            ("score", 6),
            ("best_score", 6),
            ("majority_class", 6),
        } <= rows.keys(), name
        assert rows["best_score", 6]["value"] == max(
            rows["score", 3]["value"], rows["score", 6]["value"]
        )
        assert name not in ranked or ("rank_score", 6) in rows
        assert all(-100 <= row["value"] <= 100 for row in rows.values())
    assert {row["task"] for row in run.evals} == {*scored, "corpus"}
    both = {row["metric"] for row in run.evals if row["task"] == "glue_mnli"}
    assert {"accuracy_matched", "accuracy_mismatched", "rank_accuracy_matched"} < both


@pytest.mark.slow
def test_a_folder_of_text_and_a_table_of_your_own(tmp_path):
    text = "\n\n".join(
        f"A story, number {i}.\nIt tells of {i % 13} cats and {i % 7} dogs." for i in range(3000)
    )
    copied = (
        "What the table asks, "
        + " ".join(f"word{i}" for i in range(20))
        + ", stands in a document too."
    )
    (tmp_path / "story.txt").write_text(text)
    (tmp_path / "copy.txt").write_text(f"A story that quotes.\n{copied}\n\n" * 2)
    rows = "".join(f"is {i} even?\t{'yes' if i % 2 == 0 else 'no'}\n" for i in range(300))
    rows += f"{copied}\tno\n"
    split = [
        "train" if i % 10 else "validation" for i in range(301)
    ]  # the copied row is in validation
    lines = "".join(f"{s}\t{row}\n" for s, row in zip(split, rows.splitlines(), strict=True))
    (tmp_path / "even.tsv").write_text("split\tinputs\ttargets\n" + lines)
    given = [
        "--text",
        tmp_path / "*.txt",
        "--tasks",
        f"even={tmp_path}/even.tsv:accuracy",
        "--num-shards",
        "3",
    ]
    log = _run("train", "prepare", "--out", tmp_path / "corpus", *given)
    said = "documents left out, since they hold text of downstream validation examples: 1"
    assert said in log
    corpus = open_corpus(tmp_path / "corpus")
    task = corpus.tasks["even"]
    assert task.labels == ("no", "yes") and task.examples == {"train": 270, "validation": 31}
    assert corpus.num_left_out == 1
    assert corpus.num_tokens("train") > 10 * corpus.num_tokens("validation") > 0
    words = sum(
        corpus.decode(doc).count("story")
        for s in ("train", "validation")
        for doc in _documents(corpus, s)
    )
    assert words == 3000  # without those of the document that quotes the task
    given += ["--max-tokens", "3000", "--vocabulary", tmp_path / "corpus/vocabulary.model"]
    _run("train", "prepare", "--out", tmp_path / "short", *given)
    short = open_corpus(tmp_path / "short")
    assert 3000 <= short.num_tokens("train") < 4000 and short.vocab_size == corpus.vocab_size
    bad = _run("train", "prepare", "--out", tmp_path / "x", "--text", tmp_path / "*.md", code=2)
    assert "error: text: " in bad and "Traceback" not in bad
    (tmp_path / "bad.jsonl").write_text(json.dumps({"body": "x"}) + "\n")
    bad = _run(
        "train",
        "prepare",
        "--out",
        tmp_path / "x",
        "--text",
        tmp_path / "bad.jsonl",
        "--tasks",
        code=2,
    )
    assert "bad.jsonl: row 1 has no text 'text'" in bad and "Traceback" not in bad


@pytest.mark.slow
def test_a_mixture_of_a_module_of_your_own(tmp_path):
    given = [
        "--modules",
        "tests.train.tasks.user_tasks",
        "--source",
        "user_mixture",
        "--tasks",
        "--num-shards",
        "2",
    ]
    _run("train", "prepare", "--out", tmp_path / "corpus", *given)
    corpus = open_corpus(tmp_path / "corpus")
    texts = sorted(corpus.decode(doc) for doc in _documents(corpus, "train"))
    assert corpus.name == "user_mixture" and not corpus.tasks
    assert set(texts) - {""} == {f"train text {i}" for i in range(200)}
    bad = _run("train", "prepare", "--out", tmp_path / "x", "--source", "nothing", code=2)
    assert "source = 'nothing' is not python, c4, text" in bad and "Traceback" not in bad
    bad = _run(
        "train",
        "prepare",
        "--out",
        tmp_path / "x",
        "--source",
        "c4",
        "--data-dir",
        tmp_path / "none",
        code=2,
    )
    assert "error: c4: TFDS has no data for it there; `tfds build c4/en:3.1.0 --data_dir" in bad
    assert "Traceback" not in bad


def _documents(corpus, split):
    for stream in corpus.tokens(split):
        yield from np.split(stream, np.flatnonzero(stream == 1) + 1)

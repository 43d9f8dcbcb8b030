"""`prepare` on a user's own text: what it reads, counts and refuses.

It loads TensorFlow, so a single process prepares everything.
"""

import gzip
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from train.data import batches
from train.data.batch_shape import BatchShape, TextOptions
from train.data.corpus import open_corpus

_ROOT = Path(__file__).resolve().parents[3]

_PREPARE = """
import json, sys
from train.data.prepare import prepare
from train.data.prepare_config import PrepareConfig
from train.records import InputError

for line in sys.stdin:
    case, said, error = json.loads(line), [], None
    try:
        case = {k: tuple(v) if isinstance(v, list) else v for k, v in case.items()}
        prepare(PrepareConfig(**case), said.append)
    except InputError as caught:
        error = str(caught)
    print(json.dumps({"said": said, "error": error}), flush=True)
"""


def _texts(folder):
    """Writes the files; returns the options of `prepare` for each corpus, by its name."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 7))) for _ in range(500)]
    russian = ["".join(chance.choices("абвгдежзий", k=chance.randint(2, 7))) for _ in range(500)]

    def sentence(count, of=words):
        return " ".join(chance.choices(of, k=count))

    def write(name, text):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        return str(folder / name)

    def rows(count, end=""):
        return "".join(json.dumps({"text": sentence(60) + end}) + "\n" for _ in range(count))

    lines = write("lines.txt", "".join(sentence(10) + "\n" for _ in range(200)))
    (folder / "c4").mkdir()
    shard = folder / "c4/c4-train.00000-of-00064.json.gz"
    shard.write_bytes(gzip.compress((rows(99) + '{"text": "half \\ud83d"}\n').encode()))
    lacking = write("lacking.jsonl", rows(200, " " + "ЖЩ" * 20) + rows(100))
    for number in range(13):
        write(f"short/{number:02}.txt", sentence(40))
    write("two/a.txt", "\n\n".join(sentence(80) for _ in range(200)))
    write("two/z.txt", "\n\n".join(sentence(80, russian) for _ in range(200)))
    copied = "机器学习模型的规模与下游任务的表现之间的关系取决于架构的归纳偏置"
    other = ["".join(chance.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张", k=60)) for _ in range(60)]
    write(
        "chinese.txt",
        "\n\n".join([*(text * 9 for text in other), f"引用：{copied}。" + other[0] * 9]),
    )
    examples = [("validation", copied, "是"), *(("train", text, "否") for text in other[:9])]
    table = "split\tinputs\ttargets\n" + "".join("\t".join(row) + "\n" for row in examples)
    latin = "".join(f"{sentence(5)}\t{label}\n" for label in ["Ж", "a"] * 100)
    model = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentences = iter([sentence(200) for _ in range(99)])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=model, vocab_size=200, minloglevel=2, **ids
    )
    (folder / "v.model").write_bytes(model.getvalue())
    given = str(folder / "v.model")
    half = {"inputs": "half an emoji \ud83d", "targets": "no"}
    halves = "".join(
        json.dumps(half | {"split": split}) + "\n" for split in ("train", "validation")
    )
    return {
        "lines": {"text": [lines]},
        "c4": {
            "text": [f"{folder}/c4/*.json.gz"],
            "tasks": [f"t={write('half.jsonl', halves)}:accuracy"],
        },
        "lacking": {"text": [lacking], "vocabulary": given},
        "short": {"text": [f"{folder}/short/*.txt"]},
        "two": {"text": [f"{folder}/two/*.txt"], "vocabulary_characters": 20_000, "num_shards": 1},
        "chinese": {
            "text": [f"{folder}/chinese.txt"],
            "tasks": [f"t={write('t.tsv', table)}:accuracy"],
        },
        "torn": {"text": [write("torn.jsonl", rows(9)[:-30])]},
        "one": {"text": [write("one.txt", "one line")]},
        "key": {"text": [lines], "text_key": "text"},
        "labels": {
            "text": [lacking],
            "vocabulary": given,
            "tasks": [
                f"t={write('l.tsv', 'inputs' + chr(9) + 'targets' + chr(10) + latin)}:accuracy"
            ],
        },
        "twice": {"text": [lines], "tasks": ["glue_cola", "glue"]},
        "taken": {
            "text": [lines],
            "modules": ["tests.train.tasks.user_tasks"],
            "tasks": [f"user_first={folder}/t.tsv:accuracy"],
        },
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What `prepare` printed for each corpus, its error, and the folder with all of them."""
    folder = tmp_path_factory.mktemp("texts")
    cases = _texts(folder)
    given = "".join(
        json.dumps({"tasks": [], **case, "out": str(folder / "out" / n)}) + "\n"
        for n, case in cases.items()
    )
    command = [sys.executable, "-c", _PREPARE]
    run = subprocess.run(
        command, input=given, cwd=_ROOT, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(zip(cases, map(json.loads, run.stdout.splitlines()), strict=True)), folder / "out"


@pytest.fixture(scope="module")
def opened(prepared):
    """Opens a corpus; returns it and what was printed about its text."""

    def open_one(name):
        found = prepared[0][name]
        assert found["error"] is None
        return open_corpus(prepared[1] / name), [
            line
            for line in found["said"]
            if line.startswith(("prepare: text: ", "prepare: tasks: "))
        ]

    return open_one


def _documents(corpus, split):
    stream = np.concatenate(corpus.tokens(split))
    return [corpus.decode(ids) for ids in np.split(stream, np.flatnonzero(stream == 1) + 1)[:-1]]


@pytest.mark.slow
def test_lines_without_an_empty_line_have_text_for_validation(opened):
    corpus, (reading, files, cut) = opened("lines")
    assert reading.startswith("prepare: text: reading 0.0 MB once")
    assert corpus.num_tokens("validation") > 0 and "1 of plain text" in files
    assert (
        "documents are cut at the end of a line, or between words, as no empty line came within "
        "1,000" in cut
    )
    assert (
        sum(
            document.count("\n") + 1
            for s in ("train", "validation")
            for document in _documents(corpus, s)
        )
        == 200
    )


@pytest.mark.slow
def test_a_shard_of_c4_is_read_as_what_it_holds(opened):
    corpus, said = opened("c4")
    assert "1 of JSON lines; 100 documents" in said[1] and said[2].endswith(
        "(half an emoji, NUL): 1"
    )
    assert said[3:] == [
        "prepare: tasks: t: replaced by U+FFFD, as they are no characters (half an emoji, NUL): 2"
    ]
    documents = [text for split in ("train", "validation") for text in _documents(corpus, split)]
    assert (
        len(documents) == 100
        and "half \ufffd" in documents
        and not any("{" in text for text in documents)
    )
    assert corpus.index["text"] == {
        "documents": 100,
        "held_out": len(_documents(corpus, "validation")),
        "replaced": 1,
    }
    assert corpus.index["tasks"]["t"]["replaced"] == 2
    assert corpus.decode(corpus.examples("t", "train").inputs[0]) == "half an emoji \ufffd"


@pytest.mark.slow
def test_what_a_vocabulary_lacks_is_counted_and_its_bytes_are_not_lost(opened):
    corpus, said = opened("lacking")
    for split, line in zip(("train", "validation"), said[2:], strict=True):
        found = corpus.index["pretrain"][split]
        documents = sum((ids == 2).any() for ids in _rows(corpus, split))
        assert (found["changed"], found["unknown"]) == (
            documents,
            documents,
        ) and 0 < documents < found["documents"]
        assert (
            f"does not give back {documents} of {found['documents']} documents of {split}" in line
        )
        assert f"{found['unknown'] / found['tokens']:.1%} of the pieces are unknown to it" in line
    whole = batches.heldout(corpus, BatchShape(1, 1, 12), text=TextOptions("causal_lm"))
    read = len(whole) * 11 / corpus.num_tokens("validation")
    counted = sum(batches.target_bytes(corpus, batch).sum() for batch in whole)
    assert counted == pytest.approx(
        read * corpus.index["pretrain"]["validation"]["text_bytes"], rel=0.01
    )
    assert corpus.byte_scale("validation") > 1.1


def _rows(corpus, split):
    stream = np.concatenate(corpus.tokens(split))
    return np.split(stream, np.flatnonzero(stream == 1) + 1)[:-1]


@pytest.mark.slow
def test_every_short_file_is_in_a_window(opened):
    corpus, _ = opened("short")
    sizes = [len(shard) for shard in corpus.tokens("train")]
    assert len(sizes) == 13 and max(sizes) < 568
    source = batches.Pretrain(corpus, "train", BatchShape(2, 512, 114), 0)
    assert source.num_windows == sum(sizes) // 568 > 0 and source.num_unread == sum(sizes) % 568


@pytest.mark.slow
def test_a_vocabulary_knows_the_last_files_language_too(opened):
    corpus, _ = opened("two")
    documents = [text for text in _documents(corpus, "train") if "а" in text]
    tokens = sum(map(len, corpus.vocabulary.encode(documents)))
    assert documents and tokens / sum(map(len, documents)) < 0.8


@pytest.mark.slow
def test_text_without_spaces_is_compared_with_the_tasks(opened):
    corpus, said = opened("chinese")
    assert corpus.num_left_out == 1 and not any(
        "引用" in text for text in _documents(corpus, "train")
    )
    assert len(said) == 2, "nothing is lost"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torn", 'torn.jsonl: row 9 is not a JSON object: \'{"text"'),
        ("one", "one.txt: there is only one document; at least two that differ are needed"),
        ("key", "lines.txt is plain text, which has no columns; leave one of them out"),
        ("labels", "t: the vocabulary gives the label 'Ж' back as ' ⁇ ': no model could answer it"),
        ("twice", "tasks: 'glue' gives 'glue_cola', which another one gives already"),
        ("taken", "modules register another 'user_first'; give yours another name"),
    ],
)
def test_errors_are_reported_before_any_text_is_tokenized(prepared, name, message):
    found = prepared[0][name]
    assert message in found["error"] and "\n" not in found["error"]
    assert not list((prepared[1] / name).rglob("*.npy"))

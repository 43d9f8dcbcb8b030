"""Official tasks and a user's own files, through seqio and `prepare`, into training steps, decoding and scores."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.tasks import official
from train.data import batches
from train.data.corpus import open_corpus
from train.tasks import scoring

_ROOT = Path(__file__).resolve().parents[3]


def _run(*command, code=0):
    run = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=_ROOT, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == code, run.stderr[-3000:]
    return run.stderr


@pytest.fixture(scope="module")
def c4(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    _run("tests.train.tasks.official", folder / "tfds")
    given = ["--source", "c4", "--tasks", "glue", "super_glue", "squad", "--data-dir", folder / "tfds"]
    log = _run("train", "prepare", "--out", folder / "corpus", *given, "--num-shards", "2")
    return open_corpus(folder / "corpus"), log


@pytest.mark.slow
def test_all_seventeen_tasks_and_c4_are_prepared(c4):
    corpus, _ = c4
    assert corpus.name == "c4" and len(corpus.tasks) == 17
    pages = [corpus.decode(page) for page in _documents(corpus, "train")]
    assert sorted(page for page in pages if page) == sorted(row["text"] for row in official.C4[:360])
    assert corpus.index["pretrain"]["train"]["duplicates"] == 0


@pytest.mark.slow
def test_perfect_answers_score_full_marks(c4):
    corpus, _ = c4
    for name, task in corpus.tasks.items():
        rows = corpus.examples(name, "validation").references
        references = [row for row in rows if row.get("answers") != []]  # a query without any right answer cannot be won
        answers = [r["answers"][0] if r.get("answers") else r["target"] for r in references]
        if name == "super_glue_wsc":
            answers = [r["target"] if r["label"] == "True" else "nobody" for r in references]
        assert scoring.score(task.metrics, answers, references, task.labels)["score"].value == pytest.approx(100), name
        assert 0 <= task.majority_class <= 100


@pytest.mark.slow
def test_the_tasks_train_decode_and_score(c4):
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    import arch_zoo
    from arch_zoo import decoding

    corpus, _ = c4
    lengths = (96, 16)
    config = arch_zoo.config("transformer", "nano", vocab_size=corpus.vocab_size)
    graph, params, rest = nnx.split(arch_zoo.build(config, jax.random.key(0)), nnx.Param, ...)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, batch):
        def loss(params):
            out = nnx.merge(graph, params, rest).token_nll(batch)
            return (out.nll * batch["decoder_loss_weights"]).sum() / batch["decoder_loss_weights"].sum()

        value, gradient = jax.value_and_grad(loss)(params)
        update, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, update), state, value

    state, losses = optimizer.init(params), []
    pretrain = batches.Pretrain(corpus, "train", 8, *lengths[:1], 24, seed=0)
    finetune = batches.Finetune(corpus, list(corpus.tasks), 16, *lengths, seed=0, cap=2)
    for source in (pretrain, finetune):
        for i in range(6):
            params, state, value = step(params, state, source.batch(i))
            losses.append(float(value))
    assert np.isfinite(losses).all() and losses[5] < losses[0] and losses[-1] < losses[6]
    decode = jax.jit(lambda params, batch: decoding.greedy(nnx.merge(graph, params, rest), batch, lengths[1]))
    for name, task in corpus.tasks.items():
        (part,) = batches.evaluation(corpus, name, 8, *lengths)
        ids = np.asarray(decode(params, {k: jnp.asarray(v) for k, v in part.batch.items()}))
        texts = [corpus.decode(row) for row in ids[: len(part.references)]]
        for score in scoring.score(task.metrics, texts, part.references, task.labels).values():
            assert -100 <= score.value <= 100


@pytest.mark.slow
def test_a_folder_of_text_and_a_table_of_your_own(tmp_path):
    text = "\n\n".join(f"A story, number {i}.\nIt tells of {i % 13} cats and {i % 7} dogs." for i in range(3000))
    (tmp_path / "story.txt").write_text(text)
    rows = "".join(f"is {i} even?\t{'yes' if i % 2 == 0 else 'no'}\n" for i in range(300))
    (tmp_path / "even.tsv").write_text("inputs\ttargets\n" + rows)
    given = ["--text", tmp_path / "*.txt", "--tasks", f"even={tmp_path}/even.tsv:accuracy", "--num-shards", "3"]
    _run("train", "prepare", "--out", tmp_path / "corpus", *given)
    corpus = open_corpus(tmp_path / "corpus")
    task = corpus.tasks["even"]
    assert task.labels == ("no", "yes") and sum(task.examples.values()) == 300 and task.examples["validation"] > 10
    assert corpus.num_tokens("train") > 10 * corpus.num_tokens("validation") > 0
    words = sum(corpus.decode(doc).count("story") for s in ("train", "validation") for doc in _documents(corpus, s))
    assert words == 3000
    given += ["--max-tokens", "3000", "--vocabulary", tmp_path / "corpus/vocabulary.model"]
    _run("train", "prepare", "--out", tmp_path / "short", *given)
    short = open_corpus(tmp_path / "short")
    assert 3000 <= short.num_tokens("train") < 3600 and short.vocab_size == corpus.vocab_size
    bad = _run("train", "prepare", "--out", tmp_path / "x", "--text", tmp_path / "*.md", code=2)
    assert "error: text: " in bad and "Traceback" not in bad
    (tmp_path / "bad.jsonl").write_text(json.dumps({"body": "x"}) + "\n")
    bad = _run("train", "prepare", "--out", tmp_path / "x", "--text", tmp_path / "bad.jsonl", "--tasks", code=2)
    assert "bad.jsonl: row 1 has no text 'text'" in bad and "Traceback" not in bad


@pytest.mark.slow
def test_a_mixture_of_a_module_of_your_own(tmp_path):
    given = ["--modules", "tests.train.tasks.user_tasks", "--source", "user_mixture", "--tasks", "--num-shards", "2"]
    _run("train", "prepare", "--out", tmp_path / "corpus", *given)
    corpus = open_corpus(tmp_path / "corpus")
    texts = sorted(corpus.decode(doc) for doc in _documents(corpus, "train"))
    assert corpus.name == "user_mixture" and not corpus.tasks
    assert set(texts) - {""} == {f"train text {i}" for i in range(200)}
    bad = _run("train", "prepare", "--out", tmp_path / "x", "--source", "nothing", code=2)
    assert "source = 'nothing' is not python, c4, text" in bad and "Traceback" not in bad


def _documents(corpus, split):
    for stream in corpus.tokens(split):
        yield from np.split(stream, np.flatnonzero(stream == 1) + 1)

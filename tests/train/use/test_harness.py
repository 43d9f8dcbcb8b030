"""EleutherAI's harness runs tasks made of local files on runs of this project."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import train
from train.records import InputError
from train.use.harness import HarnessModel, _until

QUESTIONS = [
    {"question": "a cat sat on", "choices": ["the mat", "articles"], "answer": 0},
    {"question": "the other", "choices": ["cats", "the", "looked at"], "answer": 2},
    {"question": "articles and", "choices": ["other", "the mat and the cat"], "answer": 1},
]
TEXTS = [{"text": "a cat sat"}, {"text": "an article"}]  # no longer than a target of `both`
TASKS = {
    "local_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc"}],
    },
    "local_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "local_answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 5, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def request(*args):
    return type("Request", (), {"args": args})()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "plain", "tuned"])
def test_tasks_of_local_files_run_to_their_scores(place, name, tmp_path):
    for task, settings in TASKS.items():
        rows = TEXTS if task == "local_text" else QUESTIONS
        data = tmp_path / f"{task}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}}
        task_file = {"task": task, "test_split": "test", **files, **settings}
        (tmp_path / f"{task}.yaml").write_text(json.dumps(task_file))
    run = place / "runs" / "study" / name
    command = [sys.executable, "-m", "train.use.harness", "--model", "arch_zoo"]
    command += ["--model_args", f"run={run},corpus={place / 'corpora' / 'tiny'}"]
    command += ["--tasks", ",".join(TASKS), "--include_path", str(tmp_path)]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples", "--batch_size", "2"]
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (tmp_path / "out").rglob("results_*.json")
    scores = json.loads(results.read_text())["results"]
    assert set(scores) == set(TASKS)

    loaded = train.load(run, corpus=place / "corpora" / "tiny")
    (samples,) = (tmp_path / "out").rglob("samples_local_choice_*.jsonl")
    right = []
    for line in samples.read_text().splitlines():
        row = json.loads(line)
        question = row["doc"]
        expected = [
            log_likelihood(loaded, question["question"], f" {choice}")
            for choice in question["choices"]
        ]
        found = [float(response[0][0]) for response in row["resps"]]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        right.append(int(np.argmax(expected)) == question["answer"])
    assert scores["local_choice"]["acc,none"] == pytest.approx(np.mean(right))
    bits = -sum(log_likelihood(loaded, "", row["text"]) for row in TEXTS) / np.log(2)
    size = sum(len(row["text"].encode()) for row in TEXTS)
    assert scores["local_text"]["bits_per_byte,none"] == pytest.approx(bits / size, rel=1e-4)


def log_likelihood(run, context, following):
    """Of what follows a context, by the whole model's logits of one row."""
    if context and run.trained.inputs_end:
        following = following.removeprefix(" ")
    encode = lambda text: run.tokenizer.encode([text])[0]
    if run.model.cfg.family == "encoder_decoder":
        ids = encode(following)
        batch = {
            "encoder_input_tokens": [[*encode(context), 1] if context else [0]],
            "decoder_input_tokens": [[0, *ids[:-1]]],
        }
        first, targets = 0, ids
    else:
        whole = encode(context + following)
        first = len(encode(context)) if context else 0
        if context and run.trained.inputs_end:
            whole = [*encode(context), 1, *encode(following)]
            first += 1
        targets = whole[first:]
        batch = {"decoder_input_tokens": [[0, *whole[:-1]]]}
    batch = {key: np.array(value, np.int32) for key, value in batch.items()}
    logits = np.asarray(run.model(batch).logits)[0, first:]
    log_probs = np.asarray(jax.nn.log_softmax(logits, axis=-1))
    return float(sum(log_probs[i, token] for i, token in enumerate(targets)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "plain", "tuned"])
def test_answers_are_those_of_generate(place, name):
    corpus = str(place / "corpora" / "tiny")
    model = HarnessModel(str(place / "runs" / "study" / name), corpus, batch_size=2)
    contexts = ["a cat", "the other cats looked", "an"]
    options = {"max_gen_toks": 4, "until": []}
    found = model.generate_until([request(context, options) for context in contexts])
    run = train.load(place / "runs" / "study" / name, corpus=corpus)
    assert found == run.generate(contexts, train.Decoding(4))
    drawn = {"max_gen_toks": 4, "temperature": 1.0, "do_sample": True, "top_k": 1}
    assert model.generate_until([request(contexts[0], drawn)]) == found[:1]


@pytest.mark.slow
def test_long_contexts_lose_their_beginning(place):
    corpus = str(place / "corpora" / "tiny")
    model = HarnessModel(str(place / "runs" / "study" / "plain"), corpus, max_length=12)
    long, short = "the mat and " * 9, "the mat and "
    ids = [model.tok_encode(text) for text in (long, short)]
    (cut, _), (whole, _) = model._loglikelihood_tokens(
        [(None, ids[0], ids[1][:3]), (None, ids[0][-9:], ids[1][:3])]
    )
    assert cut == pytest.approx(whole)


@pytest.mark.slow
def test_arguments_of_the_model_are_checked(place):
    with pytest.raises(InputError, match="run=DIRECTORY is missing"):
        HarnessModel()
    with pytest.raises(InputError, match="foo is unknown; known: run, corpus"):
        HarnessModel(str(place), foo=1)


@pytest.mark.slow
def test_a_wrong_run_is_one_line_of_the_harness(tmp_path):
    command = [sys.executable, "-m", "train.use.harness", "--model", "arch_zoo", "--tasks", "x"]
    command += ["--model_args", f"run={tmp_path}", "--include_path", str(tmp_path)]
    (tmp_path / "x.yaml").write_text(json.dumps({"task": "x", "dataset_path": "json"}))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "is no run: it has no config.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_answer_ends_at_the_first_stop_string():
    assert _until("one. two\nthree", ["\n", "."]) == "one"
    assert _until("one", [".", ""]) == "one"

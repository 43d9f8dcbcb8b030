"""A finished run as an object and as a command: what it generates, and the loss of a text."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import train
import train.__main__ as training
from arch_zoo import decoding
from tests import tolerances
from train import Decoding
from train.data.layouts import LAYOUTS
from train.records import InputError
from train.run import losses
from train.use import loaded

TEXTS = ["a cat sat", "the", "on the mat and looked at the other cats"]


def _run(place, name, **options):
    return train.load(place / "runs" / "study" / name, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), [("both", "finetune"), ("plain", "pretrain")])
def test_the_last_finished_stage_is_loaded_and_the_corpus_found(place, name, stage):
    run = _run(place, name)
    assert run.stage == stage and run.corpus.path.parent == place / "corpora"
    assert run.tokenizer.decode(run.tokenizer.encode(["a cat"])[0]) == "a cat"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "plain"])
def test_texts_are_continued_as_decoding_does_it_and_each_as_alone(place, name):
    run = _run(place, name)
    found = run.generate(TEXTS, Decoding(max_length=6))
    assert [run.generate([text], Decoding(max_length=6))[0] for text in TEXTS] == found
    for text, output in zip(TEXTS, found, strict=True):
        ids = run.tokenizer.encode([text])[0]
        if name == "both":
            batch = {"encoder_input_tokens": np.array([[*ids, 1]], np.int32)}
        else:
            batch = {"decoder_input_tokens": np.array([[0, *ids]], np.int32)}
        expected = np.asarray(decoding.greedy(run.model, batch, 6))[0]
        assert run.tokenizer.decode(expected) == output


def test_rows_are_padded_to_a_power_of_two_that_has_room():
    shapes = [loaded.padded([[1] * n], room).shape[1] for n, room in ((3, 99), (17, 99), (17, 24))]
    assert shapes == [16, 32, 24]
    assert loaded.padded([[5, 6], [7]], 3).tolist() == [[5, 6, 0], [7, 0, 0]]
    assert loaded.padded([[1] * 30], 24).shape[1] == 30  # the model says if that is too long


@pytest.mark.slow
def test_beams_and_samples_are_those_of_decoding(place):
    run = _run(place, "plain")
    ids = run.tokenizer.encode(TEXTS[:1])[0]
    batch = LAYOUTS["decoder_only"].prompts(np.array([ids], np.int32), np.zeros((1, 1), np.int32))
    beams = decoding.beam(run.model, batch, 5, 3).ids[0, 0]
    assert run.generate(TEXTS[:1], Decoding(5, beams=3)) == [run.tokenizer.decode(beams)]
    drawn = [
        run.generate(TEXTS[:1], Decoding(5, temperature=2.0, seed=seed)) for seed in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1] and len({text for (text,) in drawn}) > 1
    cold = run.generate(TEXTS[:1], Decoding(5, temperature=1.0, top_k=1))
    assert cold == run.generate(TEXTS[:1], Decoding(5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "plain"])
def test_the_loss_is_that_of_the_targets_alone(place, name):
    run = _run(place, name)
    inputs = ["what sat?", "an article", "where?"] if name == "both" else None
    found = run.nll(TEXTS, inputs)
    family = run.model.cfg.family
    for number, text in enumerate(TEXTS):
        target = np.array([[*run.tokenizer.encode([text])[0], 1]], np.int32)
        given = np.zeros((1, 0), np.int32)
        if inputs:
            given = np.array([[*run.tokenizer.encode([inputs[number]])[0], 1]], np.int32)
        batch = LAYOUTS[family].batch(given, target)
        nats, tokens = losses.sequence_sums(run.model.token_nll(batch), batch)
        assert found[number].nats == pytest.approx(float(nats[0]), rel=tolerances.REORDERED)
        assert found[number].tokens == int(tokens[0]) == target.shape[1]
        assert found[number].bytes == len(text)


@pytest.mark.slow
def test_one_text_is_no_list_of_texts(place):
    run = _run(place, "plain")
    for call in (run.generate, run.nll):
        with pytest.raises(InputError, match="'a cat' is one text; give a list of texts"):
            call("a cat")


@pytest.mark.slow
def test_gaps_in_a_text_are_sentinels(place):
    run = _run(place, "both", stage="pretrain")
    top = run.tokenizer.vocab_size - 1
    ids = run._encoded("a <extra_id_0> sat<extra_id_1>")
    assert ids.count(top) == ids.count(top - 1) == 1 and ids[-1] == top - 1
    assert "<extra_id_0>" in run.tokenizer.decode(ids)
    assert run.generate(["a <extra_id_0> sat"], Decoding(4))
    with pytest.raises(InputError, match="<extra_id_900>: the last sentinel is"):
        run.generate(["<extra_id_900>"])


@pytest.mark.slow
def test_what_cannot_be_loaded_is_named(place, tmp_path):
    runs = place / "runs" / "study"
    with pytest.raises(InputError, match="is no run: it has no config.json"):
        train.load(place)
    with pytest.raises(InputError, match="plain has not finished finetune"):
        train.load(runs / "plain", stage="finetune")
    shutil.copytree(runs / "plain", tmp_path / "a" / "b" / "plain")
    copied = tmp_path / "a" / "b" / "plain"
    with pytest.raises(InputError, match="have none with the run's fingerprint"):
        train.load(copied)
    assert train.load(copied, corpus=place / "corpora" / "tiny").stage == "pretrain"
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoints of pretrain"):
        train.load(copied)
    config = json.loads((copied / "config.json").read_text())
    config["data"]["fingerprint"] = "f" * 64
    record = dataclasses.make_dataclass("Record", ["config"])(config)
    with pytest.raises(InputError, match="and the run was trained on ffffffffffff"):
        loaded._corpus(record, copied, place / "corpora" / "tiny")
    config["pretrain"]["probe"] = {"task": "parity"}
    with pytest.raises(InputError, match="was trained on a probe, which has no text"):
        loaded._corpus(record, copied, None)


@pytest.mark.slow
def test_the_command_prints_a_line_for_each_text(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    run = _run(place, "both")
    expected = run.generate(TEXTS, Decoding(max_length=4))
    command = ["generate", "runs/study/both", "--max-length", "4"]
    assert training.main([*command, "--text", *TEXTS]) == 0
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in expected)
    (place / "lines.txt").write_text("\n".join(TEXTS))
    assert training.main([*command, "--input", "lines.txt", "--format", "json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["output"] for row in rows] == expected
    assert [row["text"] for row in rows] == TEXTS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "text: give --text or --input"),
        (["--input", "nowhere.txt"], "input: nowhere.txt cannot be read"),
        (["--text", "a", "--top-k", "3"], "top_k and top_p need a temperature"),
        (["--text", "a", "--beams", "2", "--temperature", "1"], "give one of them"),
        (["--text", "a"], "is no run: it has no config.json"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert training.main(["generate", "no/run", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_package_has_load_and_names_what_it_lacks():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = train.nothing
    assert train.load is loaded.load

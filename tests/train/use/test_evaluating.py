"""Finished and imported runs are evaluated again: bits per byte, held-out loss, tasks, a report."""

import json
import math
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import train
import train.__main__ as training
from arch_zoo import exchange
from eval.data.study import read_study
from tests import tolerances
from train import records
from train.data.text.vocabulary import EOS_ID
from train.records import InputError
from train.use import exporting, importing, text_loss
from train.use.settings import TextWindows

TEXT = "a cat sat on the mat and looked at the other cats, and the other cats looked at the mat."


def loaded(place, name):
    return train.load(place / "runs" / "study" / name, corpus=place / "corpora" / "tiny")


@pytest.mark.parametrize("length", [1, 5, 8, 9, 12, 30])
@pytest.mark.parametrize(("window", "stride"), [(8, 8), (8, 3), (8, 1)])
def test_windows_score_every_token_once_and_see_what_is_before_it(length, window, stride):
    spans = text_loss._spans(length, TextWindows(window, stride))
    assert [i for _, begin, end in spans for i in range(begin, end)] == list(range(length))
    for start, begin, end in spans:
        assert end - begin <= (window if begin == 0 else stride)
        assert begin - start == (0 if begin == 0 else window - stride)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [8, 20])
def test_bits_per_byte_are_those_of_the_whole_models_logits(place, stride):
    run = loaded(place, "plain")
    found = text_loss.score(run, TEXT, TextWindows(20, stride, batch_size=3))
    ids = [*run.tokenizer.encode([TEXT])[0], EOS_ID]
    nats = 0.0
    for start, begin, end in text_loss._spans(len(ids), TextWindows(20, stride)):
        row = np.array([[0, *ids[start : end - 1]]], np.int32)
        log_probs = jax.nn.log_softmax(run.model({"decoder_input_tokens": row}).logits[0], axis=-1)
        nats -= sum(float(log_probs[i - start, ids[i]]) for i in range(begin, end))
    assert found.tokens == len(ids) and found.bytes == len(TEXT.encode())
    assert found.bits_per_byte == pytest.approx(
        nats / math.log(2) / len(TEXT.encode()), rel=tolerances.REORDERED
    )
    assert found.nll == pytest.approx(nats / len(ids), rel=tolerances.REORDERED)
    assert found.stderr > 0


@pytest.mark.slow
def test_an_encoder_reads_what_comes_before(place):
    run = loaded(place, "both")
    found = text_loss.score(run, TEXT, TextWindows(12, 4, batch_size=2))
    ids = [*run.tokenizer.encode([TEXT])[0], EOS_ID]
    nats = 0.0
    for start, begin, end in text_loss._spans(len(ids), TextWindows(12, 4)):
        batch = {
            "encoder_input_tokens": [[*ids[start:begin], EOS_ID]],
            "decoder_input_tokens": [[0, *ids[begin : end - 1]]],
        }
        batch = {key: np.array(value, np.int32) for key, value in batch.items()}
        log_probs = jax.nn.log_softmax(run.model(batch).logits[0], axis=-1)
        nats -= sum(float(log_probs[i - begin, ids[i]]) for i in range(begin, end))
    assert found.nll == pytest.approx(nats / len(ids), rel=tolerances.REORDERED)


@pytest.mark.slow
def test_a_run_evaluated_again_has_the_values_of_its_records(place, capsys):
    directory, corpus = place / "runs" / "study" / "both", place / "corpora" / "tiny"
    before = {path: path.read_bytes() for path in directory.glob("*.json*")}
    code = training.main(["evaluate", str(directory), "--corpus", str(corpus), "--format", "json"])
    assert code == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kept = {
        (row["task"], row["metric"]): row["value"]
        for row in records.read_jsonl(directory / "evals.jsonl")
        if row["stage"] == "finetune" and row["metric"] == "score"
    }
    found = {(row["task"], row["metric"]): row["value"] for row in rows}
    for key, value in kept.items():  # the last rows of a task are those after the last step
        assert found[key] == pytest.approx(value)
    assert ("corpus", "bits_per_byte") in found
    # The trainer's records are its own.
    assert before == {path: path.read_bytes() for path in directory.glob("*.json*")}


@pytest.mark.slow
def test_imported_runs_are_a_study(place, tmp_path, capsys):
    corpus = place / "corpora" / "tiny"
    for name in ("both", "plain"):
        exporting.export(loaded(place, name), tmp_path / "hf" / name)
        out = tmp_path / "runs" / "ext" / name
        assert training.main(["import", str(tmp_path / "hf" / name), "--out", str(out)]) == 0
        command = ["evaluate", str(out), "--corpus", str(corpus), "--set", "input_length=24"]
        command += ["--set", "target_length=12", "eval_batches=2", "eval_batch_size=8"]
        assert training.main(command) == 0
        assert "added to the records" in capsys.readouterr().err
    study = read_study(tmp_path / "runs" / "ext")
    assert set(study.runs.architecture) == {"transformer", "llama"}
    assert np.isfinite(study.runs.upstream_nll).all() and (study.runs.params_total > 0).all()
    assert study.runs.filter(regex="^downstream_").notna().any().any()
    other = Path(shutil.copytree(corpus, tmp_path / "other"))
    index = json.loads((other / "corpus.json").read_text()) | {"fingerprint": "f" * 64}
    (other / "corpus.json").write_text(json.dumps(index))
    again = ["evaluate", str(tmp_path / "runs" / "ext" / "both"), "--corpus", str(other)]
    assert training.main([*again, "--set", "eval_batches=1", "input_length=24"]) == 2
    assert "was evaluated on" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "plain", "tuned"])
@pytest.mark.parametrize("form", ["hf", "zoo"])
def test_an_import_of_an_export_answers_as_the_run_does(place, tmp_path, name, form):
    run = loaded(place, name)
    exporting.export(run, tmp_path / "out", form)
    importing.import_folder(tmp_path / "out", tmp_path / "again")
    again = train.load(tmp_path / "again")
    assert again.trained == run.trained
    assert again.trained.inputs_end == (name != "plain")
    assert again.generate([TEXT[:9]]) == run.generate([TEXT[:9]])
    assert again.nll(["a cat"], ["the"]) == run.nll(["a cat"], ["the"])
    for cost in ("flops_forward", "params_total", "state_size"):
        assert again.config["accounting"][cost] == run.config["accounting"][cost]


def test_what_config_json_says_of_a_training_is_checked():
    for said in (3, {"inputs_end": True}, {"inputs_end": 1, "objective": "x", "input_length": 1}):
        with pytest.raises(exchange.ConfigError, match="arch_zoo = .* must have inputs_end"):
            importing._trained({"arch_zoo": said}, None)


@pytest.mark.slow
def test_a_text_keeps_its_ends_of_lines(place, tmp_path, capsys):
    (tmp_path / "text").write_bytes(b"a\r\nb\rc\n")
    command = ["evaluate", str(place / "runs" / "study" / "plain"), "--text"]
    command += [str(tmp_path / "text"), "--corpus", str(place / "corpora" / "tiny")]
    assert training.main([*command, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["bytes"] == 7 and found["stderr"] is None


@pytest.mark.slow
def test_models_and_runs_are_told_apart(place, tmp_path, capsys):
    run = place / "runs" / "study" / "plain"
    exporting.export(loaded(place, "plain"), tmp_path / "hf")
    for arguments, said in (
        (["generate", str(tmp_path / "hf"), "--text", "a"], "is a model, no run; `import` makes"),
        (["import", str(run), "--out", str(tmp_path / "x")], "is a run already; `export` writes"),
        (["finetune", "--init-from", str(tmp_path / "hf")], "is no run; `import` makes one"),
        (["import", str(tmp_path / "hf"), "--out", __file__ + "/x"], "cannot be made"),
    ):
        assert training.main(arguments) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_stage_starts_from_an_imported_run(place, tmp_path, capsys):
    corpus = str(place / "corpora" / "tiny")
    run = loaded(place, "both")
    exporting.export(run, tmp_path / "hf")
    importing.import_folder(tmp_path / "hf", tmp_path / "ext" / "both")
    start = ["finetune", "--corpus", corpus, "--runs", str(tmp_path / "runs"), "--set"]
    start += ["finetune.steps=2", "finetune.batch_size=2", "finetune.eval_examples=2"]
    start += ["pretrain.input_length=24", "finetune.input_length=24"]
    start += ["--init-from", str(tmp_path / "ext" / "both")]
    assert training.main(start) == 0
    config = records.read_json(next((tmp_path / "runs").rglob("config.json")))
    kept = ("architecture", "num_encoder_layers", "num_decoder_layers", "embed_dim", "options")
    assert all(config["model"][key] == run.config["model"][key] for key in kept)
    capsys.readouterr()
    assert training.main([*start, "--architecture", "glu"]) == 2
    assert "architecture = 'glu': the run of init_from has 'transformer'" in capsys.readouterr().err
    importing.import_folder(
        tmp_path / "hf", tmp_path / "ext" / "wide", run.model.cfg.vocab_size + 4
    )
    assert training.main([*start[:-1], str(tmp_path / "ext" / "wide")]) == 2
    assert "`import --vocab-size" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("change", [-3, 5])
def test_rows_of_the_vocabulary_are_cut_or_added(place, tmp_path, change):
    run = loaded(place, "plain")
    exporting.export(run, tmp_path / "hf")
    (tmp_path / "hf" / "spiece.model").unlink()
    (tmp_path / "hf" / "tokenizer.json").unlink()
    size = run.model.cfg.vocab_size
    done = importing.import_folder(tmp_path / "hf", tmp_path / "run", size + change)
    other = train.load(tmp_path / "run")
    assert done.cfg.vocab_size == size + change == other.model.cfg.vocab_size
    table, old = other.params["embedding.table"], run.params["embedding.table"]
    least = min(size, size + change)
    np.testing.assert_array_equal(table[:least], old[:least])
    assert not table[size:].any()
    assert done.resized.startswith("cut" if change < 0 else "padded with zeros")
    with pytest.raises(InputError, match="was imported without a tokenizer"):
        other.generate(["a"])
    exporting.export(other, tmp_path / "back")
    importing.import_folder(tmp_path / "back", tmp_path / "again")
    np.testing.assert_array_equal(train.load(tmp_path / "again").params["embedding.table"], table)
    with pytest.raises(exchange.ConfigError, match="would cut off the ids"):
        importing.import_folder(tmp_path / "hf", tmp_path / "small", 1)


@pytest.mark.slow
def test_what_has_no_counterpart_is_written_under_the_zoos_own_names(place, tmp_path, capsys):
    corpus = ["--corpus", str(place / "corpora" / "tiny")]
    for name, kind in (("plain", "LlamaForCausalLM"), ("other", "ArchZoo")):
        out = tmp_path / name
        command = ["export", str(place / "runs" / "study" / name), "--out", str(out), *corpus]
        assert training.main(command) == 0
        said = capsys.readouterr()
        assert kind in said.out
        assert ("under the zoo's own names: universal: Hugging Face" in said.err) == (
            name == "other"
        )
    importing.import_folder(tmp_path / "other", tmp_path / "again")
    run, again = loaded(place, "other"), train.load(tmp_path / "again")
    assert again.generate([TEXT]) == run.generate([TEXT])


def test_options_that_do_not_fit_are_refused(tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text("")
    for arguments, said in (
        (["--text", str(text)], "text: .* is empty"),
        (["--text", str(tmp_path / "no")], "cannot be read"),
        (["--text", __file__, "--tasks", "x"], "tasks: has no meaning with --text"),
        (["--text", __file__, "--stride", "9", "--window", "8"], "stride = 9: must be at most w"),
        (["--set", "nothing"], "nothing"),
        ([], "is no run"),
    ):
        assert training.main(["evaluate", str(tmp_path), *arguments]) == 2
        line = capsys.readouterr().err
        assert re.search(said, line), line

"""Trackers, which copy the metrics: they show what was recorded and nothing else."""

import dataclasses
import importlib.util
import sys

import pytest

from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.data.corpus import open_corpus
from train.records import InputError
from train.run import cell, trackers

STAGE = dataclasses.replace(tiny_study.STAGE, steps=4, eval_every=0)
CONFIG = dataclasses.replace(tiny_study.run("transformer"), pretrain=STAGE, finetune=None)


def _missing(module):
    return importlib.util.find_spec(module) is None


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(InputError, match="trackers: 'nope' is not one of tensorboard, wandb"):
        trackers.open_trackers(("nope",), tmp_path, "run", "study", {})


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_tracker_without_its_package_says_what_to_install(name, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it was not installed
    with pytest.raises(InputError, match=rf"{name}' needs {module}: pip install {module}"):
        trackers.open_trackers((name,), tmp_path, "run", "study", {})


@pytest.mark.skipif(
    _missing("tensorboardX"), reason="tensorboardX is not installed (extra `trackers`)"
)
def test_tensorboard_has_every_number_that_was_recorded(corpus, tmp_path):
    from tensorboardX.proto import event_pb2

    config = dataclasses.replace(CONFIG, trackers=("tensorboard",))
    assert cell.run_cell(config, corpus, tmp_path, quiet=True) == "done"
    (file,) = (tmp_path / "tensorboard").iterdir()
    found = {}
    for payload in _records(file.read_bytes()):
        event = event_pb2.Event.FromString(payload)
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
    run = records.read_run(tmp_path)
    for row in run.metrics:
        assert found["pretrain/loss", row["step"]] == pytest.approx(row["loss"])
        assert found["pretrain/gradient_norm", row["step"]] == pytest.approx(row["gradient_norm"])
    (nll,) = (row for row in run.evals if row["metric"] == "nll")
    assert found["pretrain/corpus/validation/nll", STAGE.steps] == pytest.approx(nll["value"])


def _records(content):
    """The payloads of a TFRecord file: each is length (8), checksum (4), payload, checksum (4)."""
    place = 0
    while place < len(content):
        length = int.from_bytes(content[place : place + 8], "little")
        yield content[place + 12 : place + 12 + length]
        place += 16 + length


def test_two_clones_have_ids_of_their_own_and_a_resumed_run_keeps_its_id(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = (trackers.own_id(tmp_path / name, "glu-nano-s0") for name in ("one", "other"))
    assert one != other and one.startswith("glu-nano-s0-")
    assert trackers.own_id(tmp_path / "one", "glu-nano-s0") == one


@pytest.mark.slow
@pytest.mark.skipif(_missing("wandb"), reason="wandb is not installed (extra `trackers`)")
def test_weights_and_biases_takes_a_run_offline(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = dataclasses.replace(CONFIG, trackers=("wandb",))
    assert cell.run_cell(config, corpus, tmp_path, quiet=True) == "done"
    own = trackers.own_id(tmp_path, CONFIG.run_id)
    assert list((tmp_path / "wandb").glob(f"offline-run-*/run-{own}.wandb"))

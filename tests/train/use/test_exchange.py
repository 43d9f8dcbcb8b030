"""Models of Hugging Face's transformers go in and out: the same numbers, the same text."""

from pathlib import Path

import jax
import numpy as np
import pytest

import train
from arch_zoo import decoding
from tests import tolerances
from train.data.layouts import LAYOUTS
from train.use import exporting, importing, weights
from train.use.imported import Imported

FOLDER = Path(__file__).parent / "models"  # written by make_models.py, whose numbers these are
NEW, BEAMS = 40, 3
NAMES = [
    pytest.param(path.name, marks=() if path.name == "llama" else pytest.mark.slow)
    for path in sorted(FOLDER.iterdir())
]
ROUNDED = {"llama_tied", "qwen3_next"}  # a factor or an offset of the norms
RESCALED = {"t5_v1_1_tied"}  # its logits lack the factor of tied ones, which its export has


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A function that imports a model once."""
    root, kept = tmp_path_factory.mktemp("ext"), {}

    def get(name):
        if name not in kept:
            importing.import_folder(FOLDER / name, root / name)
            kept[name] = train.load(root / name)
        return kept[name]

    return get


def batch_of(run, found):
    """The batch whose logits are expected, in our ids."""
    ours = Imported.of(run.config).order.ours
    ids, targets = ours[found["ids"]], ours[found["targets"]]
    if run.model.cfg.family == "encoder_decoder":
        return LAYOUTS["encoder_decoder"].batch(ids.astype(np.int32), targets.astype(np.int32))
    # The start token is theirs already.
    return {
        "decoder_input_tokens": ids.astype(np.int32),
        "decoder_loss_weights": np.ones(ids.shape),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_imported_model_has_the_logits_of_its_source(imported, name):
    run, found = imported(name), np.load(FOLDER / name / "expected.npz")
    order = Imported.of(run.config).order
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(run.model(batch_of(run, found)).logits)[..., order.ours]
    largest = np.abs(found["logits"]).max()
    assert np.abs(logits - found["logits"]).max() <= tolerances.EXCHANGE * max(largest, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_generates_the_same_tokens(imported, name):
    run, found = imported(name), np.load(FOLDER / name / "expected.npz")
    order, most = Imported.of(run.config).order, NEW
    ids = order.ours[found["ids"]].astype(np.int32)
    side = "encoder" if run.model.cfg.family == "encoder_decoder" else "decoder"
    batch = {f"{side}_input_tokens": ids}
    greedy = decoding.greedy(run.model, batch, most)
    beams = decoding.beam(run.model, batch, most, BEAMS, 0.0).ids[:, 0]
    for ours, theirs in ((greedy, found["greedy"]), (beams, found["beam"])):
        for own, their in zip(np.asarray(ours), theirs, strict=True):
            own = until_end(order.theirs[own].tolist(), order.end)
            assert own == until_end(their.tolist(), order.end)


def until_end(tokens, end):
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


@pytest.mark.parametrize("name", NAMES)
def test_an_imported_model_is_exported_bit_for_bit(imported, name, tmp_path):
    run = imported(name)
    done = exporting.export(run, tmp_path / "out")
    config, tensors = weights.read(FOLDER / name)
    written, found = weights.read(tmp_path / "out")
    assert done.kind == config["architectures"][0] and not done.why_own
    assert set(found) == set(tensors)
    for key, tensor in tensors.items() if name not in RESCALED else ():
        exact = name not in ROUNDED or "norm" not in key
        np.testing.assert_allclose(found[key], tensor, 0, 0 if exact else 3e-7)
    for key in ("bos_token_id", "eos_token_id", "vocab_size", "model_type"):
        assert written.get(key) == config.get(key)
    importing.import_folder(tmp_path / "out", tmp_path / "again")
    assert_same(train.load(tmp_path / "again"), run)


@pytest.mark.parametrize("name", NAMES)
def test_the_zoos_own_form_goes_in_and_out(imported, name, tmp_path):
    done = exporting.export(imported(name), tmp_path / "out", "zoo")
    assert done.kind == "ArchZoo"
    importing.import_folder(tmp_path / "out", tmp_path / "again")
    assert_same(train.load(tmp_path / "again"), imported(name))


def assert_same(one, other):
    assert one.model.cfg.identity() == other.model.cfg.identity()
    assert Imported.of(one.config).order == Imported.of(other.config).order
    for path, value in other.params.items():
        np.testing.assert_array_equal(one.params[path], value)

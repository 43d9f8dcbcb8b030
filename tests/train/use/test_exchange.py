"""Models of Hugging Face's transformers go in and out: the same numbers, the same text."""

from pathlib import Path

import jax
import numpy as np
import pytest

import train
from arch_zoo import ConfigError, decoding
from tests import tolerances
from train.data.layouts import LAYOUTS
from train.data.text.vocabulary import PAD_ID
from train.use import exporting, importing, weights
from train.use.imported import Imported

FOLDER = Path(__file__).parent / "models"  # written by make_models.py, whose numbers these are
NEW, BEAMS = 40, 3
KEPT = {"bos_token_id", "eos_token_id", "vocab_size", "model_type", "scale_decoder_outputs"}
NAMES = [
    pytest.param(path.name, marks=() if path.name == "llama" else pytest.mark.slow)
    for path in sorted(FOLDER.iterdir())
]


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
    return {"decoder_input_tokens": started(ids), "decoder_loss_weights": np.ones(ids.shape)}


def started(ids):
    """Rows begin with their start already; where it is their end as well, ours is another id."""
    ids = ids.astype(np.int32)
    ids[:, 0] = PAD_ID
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_imported_model_has_the_logits_of_its_source(imported, name):
    run, found = imported(name), np.load(FOLDER / name / "expected.npz")
    order = Imported.of(run.config).order
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(run.model(batch_of(run, found)).logits)[..., order.ours]
    logits = logits[..., : found["logits"].shape[-1]]  # without a row that was added
    largest = np.abs(found["logits"]).max()
    assert np.abs(logits - found["logits"]).max() <= tolerances.EXCHANGE * max(largest, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_generates_the_same_tokens(imported, name):
    run, found = imported(name), np.load(FOLDER / name / "expected.npz")
    order, most = Imported.of(run.config).order, NEW
    ids = order.ours[found["ids"]].astype(np.int32)
    if run.model.cfg.family == "encoder_decoder":
        batch = {"encoder_input_tokens": ids}
    else:
        batch = {"decoder_input_tokens": started(ids)}
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
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(found[key], tensor)
    for key in KEPT & set(config):
        assert written.get(key) == config[key]
    importing.import_folder(tmp_path / "out", tmp_path / "again")
    assert_same(train.load(tmp_path / "again"), run)


@pytest.mark.slow
def test_a_file_as_openai_released_it(imported, tmp_path):
    """Names without a prefix, causal masks beside the parameters, and a copy of the table."""
    config, tensors = weights.read(FOLDER / "gpt2")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{depth}.attn.bias": np.tri(128, dtype=np.float32)[None, None] for depth in (0, 1)}
    files = {weights.CONFIG: config}
    with weights.new_folder(tmp_path / "gpt2") as folder:
        weights.write(folder, files, {**bare, **masks, "lm_head.weight": bare["wte.weight"]})
    importing.import_folder(tmp_path / "gpt2", tmp_path / "run")
    assert_same(train.load(tmp_path / "run"), imported("gpt2"))


@pytest.mark.slow
def test_a_start_that_is_the_end_is_read_and_never_written(imported, tmp_path):
    run, size = imported("gpt2"), 29
    order = Imported.of(run.config).order
    assert (order.start, order.end, run.model.cfg.vocab_size) == (size, 5, size + 1)
    starts, ends = ({"decoder_input_tokens": np.array([[first, 7, 9]])} for first in (0, 1))
    logits = run.model(starts).logits
    np.testing.assert_array_equal(logits, run.model(ends).logits)
    assert (jax.nn.softmax(logits)[..., 0] == 0).all()
    head, embedding = run.model.head, run.model.embedding
    matrix = np.asarray(head.matrix(embedding, run.model.cfg.embed_dim))
    assert (matrix[:, 0] == 0).all() and np.abs(matrix).max() < 10
    with pytest.raises(ConfigError, match="whose start is its end keeps its size"):
        importing.import_folder(FOLDER / "gpt2", tmp_path / "run", vocab_size=40)


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

"""Makes a run of a model that others trained, so that everything that reads runs can use it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

import arch_zoo
from arch_zoo import ConfigError, accounting, exchange
from arch_zoo.config import ModelConfig
from train import records
from train.data.batch_shape import BatchShape
from train.data.text.vocabulary import EOS_ID, PAD_ID
from train.records import InputError, Row
from train.run import cell
from train.run.checkpoint import Checkpoints
from train.run.start import checkpoints_of
from train.study.config import digest
from train.use import tokenizers, weights
from train.use.imported import KEY, OWN, Imported, Trained, reordered, usual
from train.use.tokenizers import Order

_TABLES = (
    "shared.weight",
    "model.embed_tokens.weight",
    "backbone.embeddings.weight",
    "transformer.wte.weight",
    "wte.weight",
)
_HEAD = "lm_head.weight"


class Foreign(NamedTuple):
    """A model of others, in our terms.

    Attributes:
      cfg: its configuration.
      params: its parameters by path, NumPy arrays in the order of its own ids.
      tokens: its ids of the start and of the end.
      seed: of its constants.
      trained: how it was trained.
    """

    cfg: ModelConfig
    params: dict[str, Any]
    tokens: tuple[int, int]
    seed: int
    trained: Trained


class Done(NamedTuple):
    """What was imported.

    Attributes:
      cfg: the configuration.
      params: the number of parameters.
      resized: what was done to the vocabulary; empty if nothing.
      tokenizer: whether there is one.
    """

    cfg: ModelConfig
    params: int
    resized: str
    tokenizer: bool


def import_folder(folder: Path, out: Path, vocab_size: int = 0) -> Done:
    """Makes a run of a folder with config.json and safetensors.

    Args:
      folder: a model of Hugging Face's transformers, or an export under the zoo's own names.
      out: the new run's directory; must not exist, or be empty.
      vocab_size: the number of ids that the run gets: rows are cut, or rows of zeros added; 0 keeps
        those of the file.

    Raises:
      InputError: a file is missing or damaged, or the run exists.
      ConfigError: the zoo has no such model, or a tensor is missing or of another shape.
    """
    weights.check_new(out)
    source = read(folder)
    size, axes = source.cfg.vocab_size, {path: x.axes for path, x in variables(source.cfg).items()}
    resized = ""
    if vocab_size and vocab_size != size:
        source = _resized(source, axes, vocab_size)
        resized = "cut" if vocab_size < size else "padded with zeros"
        resized += f" from {size} to {vocab_size}"
    order = Order(*source.tokens, source.cfg.vocab_size)
    tokenizer = tokenizers.open_folder(folder, order)  # refused before anything is written
    params = reordered(source.params, axes, order.theirs)
    files = {path.name: _sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    kind = records.read_json(folder / weights.CONFIG)["architectures"][0]
    imported = Imported(kind, *source.tokens, order.size, files, source.trained)
    _write(out, source._replace(params=params), imported, folder)
    count = sum(x.size for x in params.values())
    return Done(source.cfg, count, resized, tokenizer is not None)


def variables(cfg: ModelConfig) -> dict[str, Any]:
    """The parameters of a model by path, with shapes and axes and without values."""
    flat = nnx.to_flat_state(nnx.state(accounting.abstract_model(cfg), nnx.Param))
    return {".".join(map(str, path)): variable for path, variable in flat}


def read(folder: Path) -> Foreign:
    """Reads a model of others.

    Raises:
      InputError: a file is missing or damaged.
      ConfigError: the zoo has no such model, or a tensor is missing or of another shape.
    """
    config, tensors = weights.read(folder)
    if config.get("architectures") == [OWN]:
        return _own(folder, config, tensors)
    copied = any(_equal(tensors, _HEAD, table) for table in _TABLES)
    settings = exchange.ForeignConfig(config, frozenset(tensors) - ({_HEAD} if copied else set()))
    found = exchange.find(settings)
    cfg, tensors = found.config(settings), found.renamed(tensors)
    for copy, original in found.copies(cfg).items():
        if copy not in settings.tensors or _equal(tensors, copy, original):
            tensors.pop(copy, None)
    shapes = {path: variable.shape for path, variable in variables(cfg).items()}
    params = exchange.import_tensors(list(found.rows(cfg, settings)), tensors, shapes)
    return Foreign(cfg, params, _tokens(config, cfg), 0, _trained(config, cfg))


def _equal(tensors: Mapping[str, np.ndarray], one: str, other: str) -> bool:
    """Whether both tensors are there and hold the same numbers."""
    return one in tensors and other in tensors and np.array_equal(tensors[one], tensors[other])


def _own(folder: Path, config: Row, tensors: dict[str, Any]) -> Foreign:
    """A model under the zoo's own names."""
    model, seed = config.get("model"), config.get("seed")
    if not isinstance(model, dict) or not isinstance(seed, int):
        raise InputError(f"{folder / weights.CONFIG}: has no model and seed")
    cfg = arch_zoo.config_from_dict(model)
    shapes = {path: variable.shape for path, variable in variables(cfg).items()}
    rows = [exchange.row(path, path) for path in shapes]
    params = exchange.import_tensors(rows, tensors, shapes)
    return Foreign(cfg, params, _tokens(config, cfg), seed, _trained(config, cfg))


def _trained(config: Row, cfg: ModelConfig) -> Trained:
    """What config.json says of a model's training, if it was exported from here."""
    said = config.get(KEY)
    if said is None:
        return usual(cfg)
    try:
        found = Trained(**said)
        kinds = {field.name: field.type for field in dataclasses.fields(Trained)}
        if any(type(getattr(found, name)) is not kind for name, kind in kinds.items()):
            raise TypeError
    except TypeError:
        names = ", ".join(field.name for field in dataclasses.fields(Trained))
        raise ConfigError(f"config.json: {KEY} = {said!r}: must have {names}") from None
    return found


def _tokens(config: Row, cfg: ModelConfig) -> tuple[int, int]:
    """Their ids of the start and the end.

    Raises:
      ConfigError: they are not two different ids.
    """
    end, pad = config.get("eos_token_id"), config.get("pad_token_id")
    end = end[0] if isinstance(end, list) and end else end
    if cfg.family == "encoder_decoder":
        return PAD_ID, EOS_ID  # the map has checked it
    start = config.get("bos_token_id")
    start = _id("bos_token_id", pad if start is None else start, cfg)
    end = _id("eos_token_id", end, cfg)
    if start == end and getattr(cfg.architecture, "one_boundary", False):
        return cfg.vocab_size - 1, end  # the row that the map has added
    if start == end:
        raise ConfigError(
            f"config.json: bos_token_id and eos_token_id are both {start}: the zoo's rows start "
            "with a token that never ends a text"
        )
    return start, end


def _id(key: str, value: Any, cfg: ModelConfig) -> int:
    if type(value) is not int or not 0 <= value < cfg.vocab_size:
        raise ConfigError(f"config.json: {key} = {value!r}: must be one of {cfg.vocab_size} ids")
    return value


def _resized(source: Foreign, axes: Mapping[str, tuple[str, ...]], size: int) -> Foreign:
    """A model with another number of ids.

    Raises:
      ConfigError: the start or the end would be cut off, or one token is both.
    """
    if getattr(source.cfg.architecture, "one_boundary", False):
        raise ConfigError(
            f"vocab_size={size}: the vocabulary of a model whose start is its end keeps its size"
        )
    if max(source.tokens) >= size:
        raise ConfigError(f"vocab_size={size}: would cut off the ids {source.tokens} of the model")
    found = {}
    for path, array in source.params.items():
        if "vocab" in axes[path]:
            axis = axes[path].index("vocab")
            kept = np.take(array, range(min(size, array.shape[axis])), axis=axis)
            margins = np.zeros((array.ndim, 2), int)
            margins[axis, 1] = size - kept.shape[axis]
            array = np.pad(kept, margins)
        found[path] = array
    return source._replace(cfg=dataclasses.replace(source.cfg, vocab_size=size), params=found)


def _write(out: Path, source: Foreign, imported: Imported, source_folder: Path) -> None:
    """The run's directory: identity, tokenizer, one checkpoint, and its status last."""
    cfg, trained = source.cfg, source.trained
    shape = BatchShape(1, trained.input_length, trained.target_length, cfg.family)
    about = dataclasses.asdict(imported)
    identity = {"model": cfg.identity(), "imported": about}
    config = {
        "run_id": out.name,
        "study": out.absolute().parent.name,
        "architecture": cfg.name,
        "family": cfg.family,
        "size": cfg.size,
        "protocol": "",
        "seed": source.seed,
        "hash": digest(identity),
        "model": cfg.to_dict(),
        "pretrain": None,
        "finetune": None,
        "data": {"name": "not known", "fingerprint": "", "vocab_size": cfg.vocab_size},
        "imported": about,
        # What its training took is not known.
        "accounting": cell.costs(cfg, shape),
    }
    with weights.new_folder(out) as folder:
        tokenizers.copy(source_folder, folder / "tokenizer")
        writer = records.RunWriter(folder, identity=(config, {}))
        writer.begin()
        with Checkpoints(checkpoints_of(folder, "pretrain")) as checkpoints:
            meta = {"stage": "pretrain", "hash": config["hash"]}
            params = {path: jnp.asarray(x) for path, x in source.params.items()}
            checkpoints.save(0, {"params": params}, meta)
        writer.status("done", finished=["pretrain"], stage="pretrain", step=0, steps=0)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

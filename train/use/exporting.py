"""Writes a finished run for others: as a model of Hugging Face's, or under the zoo's own names."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from arch_zoo import ConfigError, exchange
from arch_zoo.config import ModelConfig
from train.data.text.vocabulary import EOS_ID, PAD_ID, Vocabulary
from train.use import tokenizers, weights
from train.use.imported import KEY, OWN, Imported, reordered
from train.use.loaded import LoadedRun

Form = Literal["hf", "zoo"]


class Exported(NamedTuple):
    """What was written.

    Attributes:
      kind: the class that the files are of; `ArchZoo` under the zoo's own names.
      why_own: why the names are the zoo's own although another form was asked for; empty if not.
      tensors: the number of tensors.
    """

    kind: str
    why_own: str
    tensors: int


def export(run: LoadedRun, out: Path, form: Form = "hf") -> Exported:
    """Writes config.json, generation_config.json, the weights and the tokenizer into a new folder.

    A model that has no counterpart is written under the zoo's own names.

    Args:
      run: a finished run.
      out: the folder; must not exist, or be empty.
      form: hf for Hugging Face's transformers, zoo for the zoo's own names.

    Raises:
      InputError: the folder has files already.
    """
    weights.check_new(out)
    cfg, imported = run.model.cfg, Imported.of(run.config)
    about = {KEY: dataclasses.asdict(run.trained)}
    params, start, end = run.params, PAD_ID, EOS_ID
    if imported is not None:
        params = reordered(params, run.axes, imported.order.ours)
        start, end = imported.start, imported.end
    reason = ""
    if form == "hf":
        try:
            found = exchange.of_architecture(cfg)
            if imported is None and _one_boundary(cfg):
                raise ConfigError(f"{cfg.name}: only imported models can have one_boundary=True")
        except ConfigError as error:
            reason = str(error)
        else:
            with weights.new_folder(out) as folder:
                _write_tokenizer(run, folder)
                return as_theirs(found, cfg, params, (start, end), folder, about)
    files = {weights.CONFIG: {**own_config(cfg, run.config["seed"], (start, end)), **about}}
    with weights.new_folder(out) as folder:
        _write_tokenizer(run, folder)
        weights.write(folder, files, params)
    return Exported(OWN, reason, len(params))


def own_config(cfg: ModelConfig, seed: int, tokens: tuple[int, int]) -> dict[str, Any]:
    """The config.json of the zoo's own form.

    The seed is part of it, since some constants, such as random features, are drawn from it.
    """
    return {
        "architectures": [OWN],
        "model_type": "arch_zoo",
        "model": cfg.to_dict(),
        "seed": seed,
        "bos_token_id": tokens[0],
        "eos_token_id": tokens[1],
    }


def as_theirs(
    found: exchange.Exchange,
    cfg: ModelConfig,
    params: Mapping[str, np.ndarray],
    tokens: tuple[int, int],
    out: Path,
    about: Mapping[str, Any],
) -> Exported:
    """Writes a model of Hugging Face's.

    Args:
      found: the map.
      cfg: the model.
      params: its parameters, in the order of the ids that are written.
      tokens: the ids of the start and the end.
      out: the folder.
      about: what config.json says besides.
    """
    if _one_boundary(cfg):
        tokens = (tokens[1], tokens[1])
    settings = found.written(cfg)
    start = "decoder_start_token_id" if cfg.family == "encoder_decoder" else "bos_token_id"
    # If a language model's padding were its start, transformers would hide the start of a prompt.
    pad = tokens[0] if cfg.family == "encoder_decoder" else tokens[1]
    ids = {start: tokens[0], "pad_token_id": pad, "eos_token_id": tokens[1]}
    files = {
        weights.CONFIG: {**settings.values, **ids, **about},
        "generation_config.json": {**ids, "max_new_tokens": 64},
    }
    tensors = exchange.export_tensors(list(found.rows(cfg, settings)), params)
    weights.write(out, files, tensors)
    return Exported(found.theirs, "", len(tensors))


def _one_boundary(cfg: ModelConfig) -> bool:
    """Whether the start is the end."""
    return getattr(cfg.architecture, "one_boundary", False)


def _write_tokenizer(run: LoadedRun, out: Path) -> None:
    """The tokenizer of an imported model as it was, or the vocabulary in two forms."""
    if Imported.of(run.config) is not None:
        tokenizers.copy(run.directory / "tokenizer", out)
    elif isinstance(run.tokenizer, Vocabulary):
        alone = run.model.cfg.family == "decoder_only"
        tokenizers.write(run.tokenizer, out, starts=alone, ends=run.trained.inputs_end)

"""A finished run as an object: its model, its vocabulary, and methods that take text."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from arch_zoo import decoding
from train import records
from train.data.corpus import INDEX, Corpus, open_corpus
from train.data.layouts import LAYOUTS
from train.data.text.vocabulary import EOS_ID
from train.records import InputError
from train.run import finished
from train.run.losses import sequence_sums
from train.study.config import StageConfig, from_dict
from train.use import tokenizers
from train.use.imported import Imported, Trained
from train.use.settings import GREEDY, Decoding
from train.use.tokenizers import Tokenizer

_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_SHORTEST = 16  # tokens of a row; longer rows are powers of two, so that few lengths are compiled


class TextLoss(NamedTuple):
    """The loss of a text: nats, target tokens with the end of the text, and UTF-8 bytes."""

    nats: float
    tokens: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A run with the parameters of its last step.

    Attributes:
      config: what config.json says of the run.
      stage: pretrain or finetune.
      corpus: the corpus that it was trained on; None for an imported model.
      vocabulary: of the corpus, or of the imported model; None if it came without.
      directory: of the run.
      restored: the model as a function of its parameters, these, and the step.
    """

    config: records.Row
    stage: str
    corpus: Corpus | None
    vocabulary: Tokenizer | None
    directory: Path
    restored: finished.Restored

    def __repr__(self) -> str:
        """Its directory and stage, not its parameters."""
        return f"LoadedRun({str(self.directory)!r}, stage={self.stage!r})"

    @functools.cached_property
    def model(self) -> Any:
        """The model, as `arch_zoo.build` makes it."""
        return self.restored.model.merge(self.restored.params)

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary.

        Raises:
          InputError: the model was imported without one.
        """
        if self.vocabulary is None:
            raise InputError(f"run: {self.directory} was imported without a tokenizer")
        return self.vocabulary

    @property
    def params(self) -> Mapping[str, np.ndarray]:
        """The parameters by path."""
        return {path: np.asarray(value) for path, value in self.restored.params.items()}

    @property
    def axes(self) -> Mapping[str, tuple[str, ...]]:
        """The logical axes of each parameter."""
        return self.restored.model.axes

    def generate(self, texts: Sequence[str], how: Decoding = GREEDY) -> list[str]:
        """What the model writes after each text.

        An encoder-decoder reads the text as its input; a decoder-only model goes on from it. After
        pretraining with span corruption, `<extra_id_0>`, `<extra_id_1>`, ... in a text are the gaps
        to fill.

        Args:
          texts: the inputs.
          how: greedily, with beams or by sampling, and how much.

        Raises:
          InputError: a text has a sentinel that the vocabulary lacks.
          ConfigError: a text is longer than the architecture can read.
        """
        return self.generate_from(self._inputs(texts), how)

    def generate_from(self, inputs: Sequence[Sequence[int]], how: Decoding = GREEDY) -> list[str]:
        """The same from token ids."""
        if not inputs:
            return []
        inputs_BS = padded(inputs, self._room(how.max_length + 1))
        empty_BT = np.zeros((len(inputs), 1), np.int32)
        batch = LAYOUTS[self._family].prompts(inputs_BS, empty_BT)
        ids = _decoder(how)(self.model, dict(batch), jax.random.key(how.seed))
        return [self.tokenizer.decode(row) for row in np.asarray(ids)]

    def nll(self, texts: Sequence[str], inputs: Sequence[str] | None = None) -> list[TextLoss]:
        """The loss of each text, given its input if there are inputs.

        Raises:
          InputError: there are not as many inputs as texts, or a sentinel does not exist.
          ConfigError: a text is longer than the architecture can read.
        """
        if inputs is not None and len(inputs) != len(texts):
            raise InputError(f"inputs: {len(inputs)} inputs for {len(texts)} texts")
        if isinstance(texts, str):
            raise InputError(f"texts: {texts[:40]!r} is one text; give a list of texts")
        if not texts:
            return []
        targets = [[*self._encoded(text), EOS_ID] for text in texts]
        inputs_BS = np.zeros((len(texts), 0), np.int32)  # a language model needs no input
        if inputs is not None or self._family == "encoder_decoder":
            given = self._inputs(inputs or [""] * len(texts))
            inputs_BS = padded(given, self._room(max(map(len, targets))))
        before = inputs_BS.shape[1] if self._family == "decoder_only" else 0
        targets_BT = padded(targets, self.model.cfg.max_target_length - before)
        batch = LAYOUTS[self._family].batch(inputs_BS, targets_BT)
        nats_B, tokens_B = map(np.asarray, losses(self.model, dict(batch)))
        counted = zip(nats_B, tokens_B, texts, strict=True)
        return [TextLoss(float(n), int(t), len(text.encode())) for n, t, text in counted]

    def _room(self, taken: int) -> int:
        """The tokens of an input that every architecture can read, if targets take so many."""
        cfg = self.model.cfg
        if self._family == "encoder_decoder":
            return cfg.max_input_length
        return cfg.max_target_length - taken

    @property
    def _family(self) -> str:
        return self.model.cfg.family

    @property
    def trained(self) -> Trained:
        """How it was trained."""
        imported = Imported.of(self.config)
        if imported is not None:
            return imported.trained
        stage = from_dict(StageConfig, self.config["pretrain"], "pretrain")
        shape = stage.text_shape(self._family)
        plain = self._family == "decoder_only" and stage.objective == "causal_lm"
        ends = self.stage == "finetune" or not plain
        return Trained(ends, stage.objective, shape.input_length, shape.target_length)

    @property
    def longest(self) -> int:
        """Tokens of the longest row of its training, input and target alike."""
        cfg = self.model.cfg
        if self._family == "decoder_only":
            return cfg.max_target_length
        return min(cfg.max_input_length, cfg.max_target_length)

    def _inputs(self, texts: Sequence[str]) -> list[list[int]]:
        if isinstance(texts, str):
            raise InputError(f"texts: {texts[:40]!r} is one text; give a list of texts")
        return [[*self._encoded(text), *([EOS_ID] * self.trained.inputs_end)] for text in texts]

    def _encoded(self, text: str) -> list[int]:
        """Token ids, in which `<extra_id_k>` is a sentinel."""
        parts = _SENTINEL.split(text)
        ids = self.tokenizer.encode([parts[0]])[0]
        for number, after in zip(map(int, parts[1::2]), parts[2::2], strict=True):
            if number >= self.tokenizer.num_sentinels:
                most = self.tokenizer.num_sentinels - 1
                raise InputError(f"text: <extra_id_{number}>: the last sentinel is {most}")
            ids = [*ids, self.tokenizer.vocab_size - 1 - number, *self.tokenizer.encode([after])[0]]
        return ids


def load(
    directory: str | Path, corpus: str | Path | None = None, stage: str | None = None
) -> LoadedRun:
    """Loads a run with the parameters of its last step.

    Args:
      directory: of the run, such as runs/cpu/glu-centi-s0.
      corpus: the corpus that it was trained on; None looks for it in `corpora`, here and beside the
        folder of the run's study.
      stage: pretrain or finetune; None takes the last one that is finished.

    Raises:
      InputError: it is no run, nothing of it is finished, its checkpoint is gone or damaged, or
        there is no such corpus.
    """
    directory = Path(directory)
    record = finished.read(directory)
    done = record.status.get("finished", [])
    stage = str(stage or (done[-1] if done else "a stage"))
    restored = finished.restore(record, stage)
    imported = Imported.of(record.config)
    if imported is None:
        found = _corpus(record, directory, corpus)
        vocabulary = found.vocabulary
    else:
        found, vocabulary = None, tokenizers.open_folder(directory / "tokenizer", imported.order)
    return LoadedRun(record.config, stage, found, vocabulary, directory, restored)


def _corpus(record: records.Run, directory: Path, corpus: str | Path | None) -> Corpus:
    """The corpus of a run, by its fingerprint."""
    if (record.config.get("pretrain") or {}).get("probe"):
        raise InputError(f"run: {directory} was trained on a probe, which has no text")
    wanted = record.config["data"]["fingerprint"]
    if corpus is not None:
        found = open_corpus(corpus, verify=False)
        if found.fingerprint != wanted:
            raise InputError(
                f"corpus: {corpus} is {found.fingerprint[:12]}, and the run was trained on "
                f"{wanted[:12]}"
            )
        return found
    places = [Path("corpora"), directory.absolute().parents[2] / "corpora"]
    for place in places:
        for index in sorted(place.glob(f"*/{INDEX}")):
            if records.read_json(index).get("fingerprint") == wanted:
                return open_corpus(index.parent, verify=False)
    looked = " and ".join(map(str, dict.fromkeys(places)))
    raise InputError(f"corpus: {looked} have none with the run's fingerprint {wanted[:12]}")


@functools.cache
def _decoder(how: Decoding) -> Callable[..., jax.Array]:
    """A compiled function (model, batch, key) -> ids."""

    @jax.jit
    def decode(model: Any, batch: Any, key: jax.Array) -> jax.Array:
        if how.beams:
            found = decoding.beam(model, batch, how.max_length, how.beams, how.length_penalty)
            return found.ids[:, 0]
        if how.temperature:
            cut = (how.temperature, how.top_k, how.top_p)
            return decoding.sample(model, batch, how.max_length, key, *cut).ids
        return decoding.greedy(model, batch, how.max_length)

    return decode


@jax.jit
def losses(model: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
    """Nats and target tokens of every row of a batch, [B] both."""
    return sequence_sums(model.token_nll(batch), batch)


def padded(rows: Sequence[Sequence[int]], room: int) -> np.ndarray:
    """Rows as an array, whose length is a power of two unless that is beyond `room`."""
    longest = max(map(len, rows))
    rounded = max(_SHORTEST, 1 << max(longest - 1, 0).bit_length())
    ids = np.zeros((len(rows), max(longest, min(rounded, room))), np.int32)
    for row, own in zip(ids, rows, strict=True):
        row[: len(own)] = own
    return ids

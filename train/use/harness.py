"""EleutherAI's evaluation harness on runs of this project: the model `arch_zoo` of `lm_eval`.

    python -m train.use.harness --model arch_zoo --model_args run=runs/cpu/llama-nano-s0 --tasks ...

The options are those of `python -m lm_eval`, which has no way to find models of other packages. It
needs the package `lm_eval`, and neither PyTorch nor transformers.
"""

import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lm_eval import utils
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from arch_zoo import ConfigError
from train import command_line
from train.data.layouts import LAYOUTS
from train.data.text.vocabulary import EOS_ID, PAD_ID
from train.records import InputError
from train.use.loaded import load, padded
from train.use.settings import Decoding

Pair = tuple[Any, list[int], list[int]]  # texts, and the ids of a context and of what follows


@register_model("arch_zoo")
class HarnessModel(TemplateLM):
    """A finished or imported run as the harness sees models.

    A decoder-only model reads a context and what follows in one row. An encoder-decoder reads the
    context in its encoder. Where inputs ended with the end token in training, contexts do as well,
    and what follows is a text of its own, without the space before it.
    """

    def __init__(
        self,
        run: str = "",
        corpus: str | None = None,
        stage: str | None = None,
        batch_size: int | str = 16,
        max_length: int | None = None,
        max_gen_toks: int = 64,
        **unused: Any,
    ):
        """Loads the run.

        Args:
          run: its directory.
          corpus: the one that it was trained on; None looks for it.
          stage: pretrain or finetune; None takes the last one that is finished.
          batch_size: rows in a batch; `auto` means 16.
          max_length: tokens of a row, or of an input; contexts are cut at their beginning. None
            takes those that the model was trained with.
          max_gen_toks: new tokens, where a task does not say how many.
          **unused: what the harness gives to every model.

        Raises:
          InputError: the run is not given or cannot be loaded, or an argument is unknown.
        """
        super().__init__()
        if not run:
            raise InputError("model_args: run=DIRECTORY is missing")
        if unknown := sorted(set(unused) - {"device", "max_batch_size"}):
            raise InputError(
                f"model_args: {unknown[0]} is unknown; known: run, corpus, stage, max_length, "
                "max_gen_toks"
            )
        self._run = load(run, corpus, stage)
        cfg = self._run.model.cfg
        self._family, self._ends = cfg.family, self._run.trained.inputs_end
        self._batch_size = 16 if str(batch_size).startswith("auto") else int(batch_size)
        self.backend = "causal" if self._family == "decoder_only" else "seq2seq"
        trained = cfg.max_target_length if self.backend == "causal" else cfg.max_input_length
        self._max_length, self._max_new = int(max_length or trained), max_gen_toks

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        return EOS_ID

    @property
    def prefix_token_id(self) -> int:
        """The id that a row starts with."""
        return PAD_ID

    def tok_encode(self, string: str, **options: Any) -> list[int]:
        """Token ids; a context ends with the end token if the model's inputs did."""
        ids = self._run.tokenizer.encode([string])[0]
        ends = self._ends and options.get("add_special_tokens") is not False
        return [*ids, EOS_ID] if ends else ids

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if not self._ends:
            return super()._encode_pair(context, continuation)
        following = continuation.removeprefix(" ")  # the vocabulary begins every text with a space
        return self.tok_encode(context), self.tok_encode(following, add_special_tokens=False)

    def loglikelihood_rolling(self, requests: Any, **unused: Any) -> list[float]:
        """The log-likelihood of whole texts, in windows that do not overlap."""
        found = []
        for (text,) in [request.args for request in requests]:
            windows = utils.get_rolling_token_windows(
                self._run.tokenizer.encode([text])[0], self.prefix_token_id, self._max_length, 1
            )
            pairs = [(None, *utils.make_disjoint_window(window)) for window in windows]
            found.append(sum(value for value, _ in self._loglikelihood_tokens(pairs)))
        return found

    def generate_until(self, requests: Any, **unused: Any) -> list[str]:
        """What the model writes after each context, up to a stop string."""
        answers: dict[int, str] = {}
        groups: dict[Decoding, list[int]] = {}
        for number, (_, options) in enumerate(request.args for request in requests):
            groups.setdefault(self._decoding(options), []).append(number)
        for how, numbers in groups.items():
            room = self._max_length - (how.max_length if self.backend == "causal" else 0)
            rows = {n: self._cut(self.tok_encode(requests[n].args[0]), room) for n in numbers}
            for part in self._batches(numbers, lambda n, rows=rows: len(rows[n])):
                texts = self._run.generate_from([rows[n] for n in part], how)
                answers |= dict(zip(part, texts, strict=True))
        return [
            _until(answers[number], request.args[1].get("until", ()))
            for number, request in enumerate(requests)
        ]

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], **unused: Any
    ) -> list[tuple[float, bool]]:
        """For each pair the log-likelihood of what follows, and whether it is the likeliest."""
        found: dict[int, tuple[float, bool]] = {}
        length = lambda number: len(requests[number][1]) + len(requests[number][2])
        for part in self._batches(range(len(requests)), length):
            contexts, targets = [], []
            for number in part:
                _, context, following = requests[number]
                context = [token for token in context if token != self.prefix_token_id]
                room = self._max_length - (len(following) if self.backend == "causal" else 0)
                contexts.append(self._cut(context, room))
                targets.append(following)
            spare = self._batch_size - len(part)
            inputs_BS, targets_BT = (
                padded([*rows, *([[]] * spare)], self._max_length) for rows in (contexts, targets)
            )
            batch = LAYOUTS[self._family].batch(inputs_BS, targets_BT)
            sums_B, right_B = map(np.asarray, _scored(self._run.model, dict(batch)))
            for number, value, right in zip(part, sums_B, right_B, strict=False):
                found[number] = float(value), bool(right)
        return [found[number] for number in range(len(requests))]

    def _decoding(self, options: dict[str, Any]) -> Decoding:
        length = int(options.get("max_gen_toks", self._max_new))
        temperature = float(options.get("temperature", 0.0) or 0.0)
        sampled = options.get("do_sample", temperature > 0) and temperature > 0
        if not sampled:
            return Decoding(length)
        cut = {"top_k": int(options.get("top_k", 0)), "top_p": float(options.get("top_p", 1.0))}
        return Decoding(length, temperature=temperature, **cut)

    def _cut(self, ids: list[int], room: int) -> list[int]:
        """The last `room` ids."""
        return ids[-room:] if room > 0 else []

    def _batches(self, numbers: Sequence[int], length: Any) -> list[list[int]]:
        """Numbers in batches of requests of similar length, the longest first."""
        order = sorted(numbers, key=length, reverse=True)
        starts = range(0, len(order), self._batch_size)
        return [order[start : start + self._batch_size] for start in starts]


@jax.jit
def _scored(model: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
    """The log-likelihood of each row's targets, and whether each is the likeliest token, [B]."""
    logits_BTV = model(batch).logits
    targets_BT, real_BT = batch["decoder_target_tokens"], batch["decoder_loss_weights"] > 0
    log_probs_BTV = jax.nn.log_softmax(logits_BTV, axis=-1)
    value_BT = jnp.take_along_axis(log_probs_BTV, targets_BT[..., None], axis=-1)[..., 0]
    likeliest_BT = jnp.argmax(logits_BTV, axis=-1) == targets_BT
    return jnp.where(real_BT, value_BT, 0).sum(1), (likeliest_BT | ~real_BT).all(1)


def _until(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends)] if ends else text


def main() -> int:
    """Runs the harness's own command; returns the exit code."""
    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(command_line.run(main, (InputError, ConfigError)))

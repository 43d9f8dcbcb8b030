"""How much training text a model recites: extraction as in Carlini et al. (2022, arXiv 2202.07646).

A row counts as extracted if the greedy continuation of its first tokens is what follows there, up
to the end of the document.
"""

from typing import Any

import jax
import numpy as np

from arch_zoo import decoding
from train.data import batches
from train.data.layouts import LAYOUTS
from train.data.text.vocabulary import EOS_ID
from train.measures.finished import FinishedRun
from train.measures.settings import Extraction
from train.records import InputError, Row

MEASURE = "extraction"


def measure(run: FinishedRun, settings: Extraction) -> list[Row]:
    """Rows for train (text that was trained on) and validation.

    They have measure, split, value (the share of rows that are extracted), tokens (the mean
    share of the answer's tokens that are right) and n.

    Raises:
      InputError: the model does not continue plain text, or its rows are too short.
    """
    length, asked = run.shape.target_length, settings.prompt + settings.answer
    if run.model.family != "decoder_only" or run.stage.objective != "causal_lm":
        raise InputError(
            f"run: {run.record.path}: only a decoder-only model of plain text (objective = "
            f"causal_lm) continues a row, not {run.model.family} with {run.stage.objective}"
        )
    if asked > length:
        raise InputError(
            f"prompt = {settings.prompt} and answer = {settings.answer}: rows have {length} tokens"
        )

    @jax.jit
    def decode(params: Any, batch: Any) -> jax.Array:
        return decoding.greedy(run.model.merge(params), batch, settings.answer)

    seen = run.seen()
    # No more rows than an epoch has, and none that was not reached.
    trained = min(
        seen.num_windows, run.step * run.stage.batch_size, settings.batches * seen.batch_size
    )
    sources = {
        "train": batches.first(seen, trained),
        "validation": run.heldout()[: settings.batches],
    }
    found: list[Row] = []
    for split, parts in sources.items():
        answers = [_answers(run, settings, decode, part) for part in parts]
        right_NT, inside_NT = map(np.concatenate, zip(*answers, strict=True))
        found.append(
            {
                "measure": MEASURE,
                "split": split,
                "value": float((right_NT | ~inside_NT).all(axis=1).mean()),
                "tokens": float(right_NT[inside_NT].mean()),
                "n": len(right_NT),
            }
        )
    return found


def _answers(
    run: FinishedRun, settings: Extraction, decode: Any, batch: batches.HostBatch
) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens of the answers are right, and which are asked for, both [B, answer]."""
    tokens_BT = batch["decoder_target_tokens"]
    tokens_BT = tokens_BT[batch["decoder_loss_weights"].any(axis=1)]
    asked_BT = tokens_BT[:, : settings.prompt + settings.answer]
    given_BP, wanted_BT = np.split(asked_BT, [settings.prompt], axis=1)
    prompts = LAYOUTS[run.model.family].prompts(given_BP, wanted_BT)
    ends_BT = wanted_BT == EOS_ID  # decoding goes no further
    inside_BT = np.cumsum(ends_BT, axis=1) - ends_BT == 0
    return np.asarray(decode(run.params, prompts)) == wanted_BT, inside_BT

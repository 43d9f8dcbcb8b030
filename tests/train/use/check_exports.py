"""Hugging Face's transformers read what we write, and compute the same: to be run by hand.

In an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from the
root of the checkout, `python -m tests.train.use.check_exports`. Random models of every map are
written and loaded; logits, tokens decoded greedily and by beams, and the tokens of a text are
compared. Prints a line for each model; raises AssertionError at the first difference. Beams never
end here, since theirs and ours differ in which rows that end count; `test_exchange` has those that
do.
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers as hf

import arch_zoo
from arch_zoo import decoding, exchange
from tests import tolerances
from tests.arch_zoo.exchange.test_tables import OPTIONS, config
from train.data.text import vocabulary as text
from train.run.step import make_model
from train.use import exporting, tokenizers, weights

NEW, BEAMS = 12, 3
END = 1
TEXT = "the cat sat on the mat\nand  the cats of it saw that"


def main() -> None:
    """Compares every model."""
    jax.config.update("jax_default_matmul_precision", "highest")
    for name, several in OPTIONS.items():
        for options in several:
            if name == "sliding_window" and options["windows"] == (0,):
                continue  # a Mistral without a window is a Llama
            if options.get("one_boundary"):
                continue  # only imported models have it
            compare(config(name, **options))
    compare_tokens()


def compare(cfg: arch_zoo.ModelConfig) -> None:
    """Writes a model, loads it, and compares what both compute."""
    model, params = make_model(cfg, seed=1)
    module = model.merge(params)
    with tempfile.TemporaryDirectory() as folder, weights.new_folder(Path(folder) / "out") as out:
        arrays = {path: np.asarray(x) for path, x in params.items()}
        done = exporting.as_theirs(exchange.of_architecture(cfg), cfg, arrays, (0, 1), out, {})
        theirs = getattr(hf, done.kind).from_pretrained(out).eval()
    ids = np.random.default_rng(0).integers(3, cfg.vocab_size, (2, 9)).astype(np.int32)
    targets = np.random.default_rng(1).integers(3, cfg.vocab_size, (2, 7)).astype(np.int32)
    both = cfg.family == "encoder_decoder"
    if both:
        starts = np.concatenate([np.zeros((2, 1), np.int32), targets[:, :-1]], axis=1)
        batch = {"encoder_input_tokens": ids, "decoder_input_tokens": starts}
        read = {"input_ids": torch.tensor(ids), "decoder_input_ids": torch.tensor(starts)}
    else:
        ids[:, 0] = 0
        batch, read = {"decoder_input_tokens": ids}, {"input_ids": torch.tensor(ids)}
    with torch.no_grad():
        expected = theirs(**read, use_cache=False).logits.numpy()
        how = {
            "max_new_tokens": NEW,
            "do_sample": False,
            "use_cache": False,
            "attention_mask": torch.ones(2, 9, dtype=torch.long),
        }
        answer = theirs.generate(torch.tensor(ids), **how)[:, 1 if both else 9 :].numpy()
    logits = np.asarray(module(batch).logits)
    error = np.abs(logits - expected).max() / max(np.abs(expected).max(), 1)
    assert error <= tolerances.EXCHANGE, (cfg.name, error)
    prompt = {f"{'encoder' if both else 'decoder'}_input_tokens": ids}
    own = np.asarray(decoding.greedy(module, prompt, NEW))[:, : answer.shape[1]]
    ended = np.cumsum(own == 1, axis=1) - (own == 1) > 0  # what follows the end is padding
    np.testing.assert_array_equal(np.where(ended, 0, own), np.where(ended, 0, answer))
    how |= {"num_beams": BEAMS, "length_penalty": 0.0}
    how |= {"suppress_tokens": [END], "renormalize_logits": True}
    answer = theirs.generate(torch.tensor(ids), **how)[:, 1 if both else 9 :].numpy()
    own = decoding.beam(Endless(module), prompt, NEW, BEAMS, 0.0).ids[:, 0]
    np.testing.assert_array_equal(own, answer)
    print(f"{cfg.name} {cfg.architecture}: logits off by {error:.1e}, beam {answer[0].tolist()}")


class Endless:
    """A model that never ends a row: what decoding asks of a model, without the end token."""

    def __init__(self, model):
        self.model = model

    def prefill(self, batch, max_length):
        """As the model's, with another distribution of the first token."""
        logits_BV, *others = self.model.prefill(batch, max_length)
        return logits_BV.at[:, END].set(-jnp.inf), *others

    def decode_step(self, *args):
        """As the model's, with another distribution of the next token."""
        logits_BV, cache = self.model.decode_step(*args)
        return logits_BV.at[:, END].set(-jnp.inf), cache


def compare_tokens() -> None:
    """Writes a vocabulary, loads it, and compares the tokens of a text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.model"
        path.write_bytes(text.train([TEXT] * 3, 300, 10, exact=False))
        own = text.Vocabulary(path, 10)
        tokenizers.write(own, Path(folder), starts=False, ends=True)
        other = hf.AutoTokenizer.from_pretrained(folder)
        ids = other(TEXT).input_ids
        assert ids == [*own.encode([TEXT])[0], 1], ids
        assert other.decode(ids, skip_special_tokens=True) == TEXT
        assert other.convert_tokens_to_ids("<extra_id_0>") == own.vocab_size - 1
        print("tokens of a text: equal")


if __name__ == "__main__":
    main()

"""Small random models of Hugging Face's transformers, with what they compute, for the import tests.

Recipe, in an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from
the root of the checkout, `python -m tests.train.use.make_models`.

Each folder in `models` is what `save_pretrained` writes, and expected.npz: ids, logits, and what
greedy and beam search generate. Weights are spread so that likely tokens differ by position.
"""

import itertools
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers as hf

FOLDER = Path(__file__).parent / "models"
VOCAB, NEW, BEAMS = 29, 40, 3  # long enough for every beam to end
T5 = {
    "vocab_size": VOCAB,
    "d_model": 12,
    "d_kv": 6,
    "d_ff": 20,
    "num_heads": 3,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "decoder_start_token_id": 0,
}
CAUSAL = {
    "vocab_size": VOCAB,
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 128,
    "bos_token_id": 3,
    "eos_token_id": 5,
    "pad_token_id": 3,
}
QWEN = {
    "layer_types": ["linear_attention"] * 2,
    "mlp_only_layers": [0, 1],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 12,
    "rms_norm_eps": 1e-5,
}
MAMBA = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_heads": 4,
    "head_dim": 8,
    "state_size": 6,
    "n_groups": 1,
    "bos_token_id": 3,
    "eos_token_id": 5,
    "pad_token_id": 3,
    "tie_word_embeddings": False,
}
GPT2 = {
    "vocab_size": VOCAB,
    "n_positions": 128,
    "n_embd": 20,
    "n_layer": 2,
    "n_head": 4,
    "pad_token_id": 5,
    "eos_token_id": 5,
}
SWITCH = {
    "num_experts": 3,
    "num_sparse_encoder_layers": 1,
    "num_sparse_decoder_layers": 1,
    "num_decoder_layers": 2,
}


# Where the search for a telling seed begins. Beam search of theirs leaves out rows that end beyond
# the best N of a step, ours does not; from these on both find the same.
FIRST = {"t5": 39, "switch": 74, "llama_tied": 27, "gpt2": 58, "gpt2_start": 39}


def models() -> dict[str, hf.PreTrainedModel]:
    """A model of each class; some classes have two forms."""
    gated = hf.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    own = hf.T5ForConditionalGeneration(gated)
    own.lm_head.weight = torch.nn.Parameter(torch.zeros(VOCAB, T5["d_model"]))
    return {
        "t5": hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
        "t5_v1_1": own,
        "t5_v1_1_tied": hf.T5ForConditionalGeneration(gated),
        "switch": hf.SwitchTransformersForConditionalGeneration(
            hf.SwitchTransformersConfig(**T5 | SWITCH)
        ),
        "gpt2": hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2, bos_token_id=5)),  # one token for both
        "gpt2_start": hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2, bos_token_id=3)),
        "llama": hf.LlamaForCausalLM(hf.LlamaConfig(**CAUSAL, rms_norm_eps=1e-5)),
        "llama_tied": hf.LlamaForCausalLM(hf.LlamaConfig(**CAUSAL, tie_word_embeddings=True)),
        "mistral": hf.MistralForCausalLM(hf.MistralConfig(**CAUSAL, sliding_window=5)),
        "mixtral": hf.MixtralForCausalLM(
            hf.MixtralConfig(**CAUSAL, num_local_experts=3, sliding_window=None)
        ),
        "mamba2": hf.Mamba2ForCausalLM(hf.Mamba2Config(**MAMBA)),
        "qwen3_next": hf.Qwen3NextForCausalLM(hf.Qwen3NextConfig(**CAUSAL | QWEN)),
    }


def randomise(model: hf.PreTrainedModel, seed: int) -> None:
    """Draws every parameter so that each one matters, and logits are far apart."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                scale = name.endswith("weight") and ("norm" in name or ".ln_" in name)
                centre = float(scale and not isinstance(model, hf.Qwen3NextForCausalLM))
                parameter.copy_(centre + 0.2 * drawn)
            else:
                parameter.copy_(drawn * (1.5 if "lm_head" in name else parameter.shape[-1] ** -0.5))
        model.get_output_embeddings().weight[model.config.eos_token_id] *= 2


def is_telling(model: hf.PreTrainedModel, found: dict[str, np.ndarray]) -> bool:
    """Whether answers are of several tokens and end.

    Beams that have not ended are an answer of theirs and not of ours.
    """
    end = model.config.eos_token_id
    greedy = [len(set(row.tolist()) - {end, model.config.pad_token_id}) for row in found["greedy"]]
    beams = [row.tolist().index(end) if end in row else 0 for row in found["beam"]]
    return min(beams) >= 1 and max(greedy) >= 2


def expected(model: hf.PreTrainedModel) -> dict[str, np.ndarray]:
    """Logits and what is generated, of two rows of one length."""
    rng = np.random.default_rng(0)
    ids = rng.integers(6, VOCAB, (2, 9))
    starts = model.config.is_encoder_decoder
    read = {"input_ids": torch.tensor(ids)}
    if starts:
        ids[:, -1] = 1
        targets = rng.integers(6, VOCAB, (2, 7))
        first = np.zeros((2, 1), int)
        read["decoder_input_ids"] = torch.tensor(np.concatenate([first, targets[:, :-1]], axis=1))
    else:
        ids[:, 0], targets = model.config.bos_token_id, ids
    read["input_ids"] = torch.tensor(ids)
    how = {
        "max_new_tokens": NEW,
        "eos_token_id": model.config.eos_token_id,
        "pad_token_id": model.config.pad_token_id,
        "do_sample": False,
        # Their cache expects as many decoder as encoder layers, and attention in one of them.
        "use_cache": not starts and not isinstance(model, hf.Qwen3NextForCausalLM),
        "attention_mask": torch.ones(2, 9, dtype=torch.long),
    }
    with torch.no_grad():
        logits = model(**read, use_cache=False).logits
        skip = 1 if starts else ids.shape[1]
        generated = {
            name: model.generate(read["input_ids"], **how, **extra)[:, skip:]
            for name, extra in (
                ("greedy", {}),
                ("beam", {"num_beams": BEAMS, "length_penalty": 0.0}),
            )
        }
    found = {"ids": ids, "targets": targets, "logits": logits.numpy()}
    return found | {name: tokens.numpy() for name, tokens in generated.items()}


def main() -> None:
    """Writes the folders."""
    for name, model in models().items():
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        for seed in itertools.count(FIRST.get(name, 0)):
            randomise(model.eval(), seed)
            found = expected(model)
            if is_telling(model, found):
                break
        model.save_pretrained(folder)
        again = type(model).from_pretrained(folder).eval()
        np.testing.assert_array_equal(found["logits"], expected(again)["logits"])
        np.savez_compressed(folder / "expected.npz", **found)
        print(name, seed, found["greedy"].tolist(), found["beam"].tolist())


if __name__ == "__main__":
    main()

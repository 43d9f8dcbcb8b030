"""Goldens of Hugging Face's GPT2LMHeadModel: of `gpt2`, and with T5's parts of the vanilla model.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0`, then, from the root of the checkout, `python -m tests.parity.make_gpt2`.

The goldens of `gpt2` are the model as it is, with padded rows and with packed ones, where positions
restart.

In the golden of the vanilla model, GPT-2's own is the skeleton: residual layers with a norm before
each and one at the end, one matrix for queries, keys and values, causal attention, and logits from
the embedding. The parts in which the vanilla model differs are replaced. Norms are T5's, with
neither mean nor bias. The feed-forward layers have ReLU, which GPT-2's configuration allows. Logits
of attention are not scaled, which it allows too. T5's relative bias is added to the mask. Biases
and learned positions are zero and not trained. The tied logits are scaled by D^-1/2.
"""

import numpy as np
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

DIMENSIONS = {**t5_torch.DECODER_ONLY, "head_dim": 4}  # GPT-2's heads together are as wide as D
LENGTH = 40
UNUSED = (".bias", "wpe")


def gpt2(**options) -> GPT2LMHeadModel:
    """GPT-2, with the norms' epsilon of the zoo."""
    config = GPT2Config(
        vocab_size=DIMENSIONS["vocab_size"],
        n_positions=LENGTH,
        n_embd=DIMENSIONS["embed_dim"],
        n_layer=DIMENSIONS["num_decoder_layers"],
        n_head=DIMENSIONS["num_heads"],
        n_inner=DIMENSIONS["mlp_dim"],
        layer_norm_epsilon=1e-6,
        attn_implementation="eager",
        use_cache=False,
        **options,
    )
    return GPT2LMHeadModel(config).eval()


def build() -> nn.ModuleDict:
    """GPT-2 with T5's norms, and the attention of T5 whose relative bias it gets."""
    dim, heads = DIMENSIONS["embed_dim"], DIMENSIONS["num_heads"]
    model = gpt2(activation_function="relu", scale_attn_weights=False)
    for block in model.transformer.h:
        block.ln_1, block.ln_2 = T5LayerNorm(dim), T5LayerNorm(dim)
    model.transformer.ln_f = T5LayerNorm(dim)
    bias = T5Attention(
        T5Config(d_model=dim, num_heads=heads, is_decoder=True),
        has_relative_attention_bias=True,
        layer_idx=0,
    ).relative_attention_bias
    return nn.ModuleDict({"gpt2": model, "relative_attention_bias": bias})


def silence(model: nn.Module) -> None:
    """Takes away what the vanilla model does not have."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in UNUSED):
            parameter.data.zero_()
            parameter.requires_grad_(False)


def parameters(model: nn.ModuleDict) -> dict[str, Weight]:
    """Every parameter by the zoo's path. GPT-2's matrices are [in, out] like the zoo's."""
    gpt2 = model["gpt2"].transformer
    weights = {
        "embedding.table": Weight(gpt2.wte.weight),
        "decoder.positions.table": Weight(model["relative_attention_bias"].weight),
        "decoder.norm.scale": Weight(gpt2.ln_f.weight),
    }
    for index, block in enumerate(gpt2.h):
        path = f"decoder.blocks.{index}"
        for third, name in enumerate(("query", "key", "value")):
            weights[f"{path}.self_attention.layer.{name}"] = Weight(
                block.attn.c_attn.weight, lambda a, third=third: np.split(a, 3, axis=1)[third]
            )
        weights |= {
            f"{path}.self_attention.layer.out": Weight(block.attn.c_proj.weight),
            f"{path}.self_attention.norm.scale": Weight(block.ln_1.weight),
            f"{path}.feed_forward.layer.wi": Weight(block.mlp.c_fc.weight),
            f"{path}.feed_forward.layer.wo": Weight(block.mlp.c_proj.weight),
            f"{path}.feed_forward.norm.scale": Weight(block.ln_2.weight),
        }
    return weights


def logits(model: nn.ModuleDict, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """Logits [B, T, V]."""
    ids = torch.tensor(batch["decoder_input_tokens"])
    places = torch.arange(ids.shape[1])
    buckets = T5Attention._relative_position_bucket(
        places[None, :] - places[:, None], bidirectional=False
    )
    bias = model["relative_attention_bias"](buckets).permute(2, 0, 1)
    mask = t5_torch.causal_mask(batch) + bias
    return (
        model["gpt2"](input_ids=ids, attention_mask=mask).logits * DIMENSIONS["embed_dim"] ** -0.5
    )


def own_logits(model: GPT2LMHeadModel, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """Logits [B, T, V] of the model as it is; positions restart in every packed example.

    The map has the zoo's scale of logits in the last norm.
    """
    positions = batch.get("decoder_positions")
    return model(
        input_ids=torch.tensor(batch["decoder_input_tokens"]),
        attention_mask=t5_torch.causal_mask(batch),
        position_ids=None if positions is None else torch.tensor(positions),
    ).logits


def main() -> None:
    """Writes the goldens."""
    vocab_size = DIMENSIONS["vocab_size"]
    for case, batch in (
        ("padded", batches.padded((1, 1), (LENGTH, 27), vocab_size)),
        ("packed", batches.packed([[(1, 17), (1, 12)], [(1, 11), (1, 9)]], vocab_size, spare=3)),
    ):
        batch, model = batches.decoder_only(batch), gpt2()
        t5_torch.randomise(model)
        config = {"name": "gpt2", "size": "nano", "max_target_length": LENGTH, **DIMENSIONS}
        weights = t5_torch.mapped(model, config)
        t5_torch.check_complete(model, weights)
        t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, own_logits(model, batch)).save(
            f"gpt2-lm-{case}"
        )
    rows = [[(1, 17), (1, 12)], [(1, 11), (1, 9), (1, 1)]]
    batch = batches.decoder_only(batches.packed(rows, DIMENSIONS["vocab_size"], spare=3))
    model = build()
    t5_torch.randomise(model)
    silence(model)
    weights = parameters(model)
    t5_torch.check_complete(model, weights, UNUSED)
    config = {"name": "transformer", "size": "nano", **DIMENSIONS}
    t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, logits(model, batch)).save(
        "transformer-lm-gpt2"
    )


if __name__ == "__main__":
    main()

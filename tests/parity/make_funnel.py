"""Goldens of the Funnel Transformer in both forms.

Blocks and attention of Hugging Face's T5, torch's average pooling. Recipe, in an environment of its
own (never the project's): `pip install torch==2.13.0 transformers==5.23.0`, then, from the root of
the checkout, `python -m tests.parity.make_funnel`.

Padding comes in whole pairs, because the average of a token and padding is a choice of the zoo's
own; packed examples start at multiples of four for the same reason. Which layer pools is written
here; `make_funnel_mesh` runs a stack that decides it.
"""

import torch
from torch import nn

from tests.parity import batches, t5_torch

# Four layers in three blocks: two, one and one.
POOLED_DEPTHS = (2, 3)


def pool(x):
    """Means over pairs of positions."""
    return nn.functional.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2)


def allowed(queries, keys):
    """The additive mask of positions with these segment ids."""
    return t5_torch.additive((queries[:, :, None] == keys[:, None, :]).numpy())


def encode(model, batch, pools: str):
    """The memory and its segment ids."""
    stack = model.encoder
    segment_ids = torch.tensor(batches.segments(batch, "encoder"))
    x = stack.embed_tokens(torch.tensor(batch["encoder_input_tokens"]))
    bias = stack.block[0].layer[0].SelfAttention.compute_bias(x.shape[1], x.shape[1])
    for depth, block in enumerate(stack.block):
        attention, feed_forward = block.layer
        if depth not in POOLED_DEPTHS:
            x = attention(x, attention_mask=allowed(segment_ids, segment_ids), position_bias=bias)[
                0
            ]
        else:
            pooled_ids = segment_ids[:, ::2]
            if pools == "attention":
                x = pool(
                    attention(
                        x, attention_mask=allowed(segment_ids, segment_ids), position_bias=bias
                    )[0]
                )
            else:
                queries, norm = pool(x), attention.layer_norm
                x = (
                    queries
                    + attention.SelfAttention(
                        norm(queries),
                        key_value_states=norm(x),
                        mask=allowed(pooled_ids, segment_ids),
                        position_bias=bias[:, :, ::2],
                    )[0]
                )
            segment_ids, bias = pooled_ids, bias[:, :, : x.shape[1], : x.shape[1]]
        x = feed_forward(x)
    return stack.final_layer_norm(x), segment_ids


def logits(model, batch, pools: str):
    """Tied logits [B, T, V]."""
    memory, segment_ids = encode(model, batch, pools)
    _, decoder_mask, _ = t5_torch.masks(batch)
    x = model.decoder(
        input_ids=torch.tensor(batch["decoder_input_tokens"]),
        attention_mask=decoder_mask,
        encoder_hidden_states=memory,
        encoder_attention_mask=allowed(
            torch.tensor(batches.segments(batch, "decoder")), segment_ids
        ),
    ).last_hidden_state
    return x * model.config.d_model**-0.5 @ model.shared.weight.T


def main() -> None:
    """Writes the goldens."""
    dimensions = t5_torch.DIMENSIONS | {"num_encoder_layers": 4}
    model = t5_torch.build(dimensions)
    t5_torch.randomise(model)
    weights = t5_torch.parameters(model)
    t5_torch.check_complete(model, weights)
    cases = {
        "padded": batches.padded((40, 28), (7, 8), dimensions["vocab_size"]),
        "packed": batches.packed(
            [[(8, 7), (12, 9)], [(4, 3), (8, 9)]], dimensions["vocab_size"], spare=4
        ),
    }
    for pools in ("attention", "query"):
        for case, batch in cases.items():
            config = {
                "name": "funnel",
                "size": "nano",
                "num_blocks": 3,
                "pools": pools,
                **dimensions,
            }
            scores = logits(model, batch, pools)
            t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, scores).save(
                f"funnel-{pools}-{case}"
            )


if __name__ == "__main__":
    main()

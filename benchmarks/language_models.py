"""Compares a training step of language models with that of Hugging Face's, in one run.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.language_models
    python -m benchmarks.language_models --shapes d64,d256 --architectures llama

A decoder-only `transformer` is measured beside `GPT2LMHeadModel`, and `llama` beside
`LlamaForCausalLM` (PyTorch): the same width, depth, heads, hidden units, vocabulary and batch, and
the same step, forward, the loss of every position, backward and AdamW's update. GPT-2 gets ReLU,
which is cheaper than its GELU, and both get PyTorch's fused AdamW and its own choice of attention.
What differs in work: GPT-2 has biases and learned positions, the vanilla model a relative bias,
and our step also takes the z-loss and the norms of gradients and parameters.

Prints a table on stderr and JSON on stdout: seconds per step of both, our time over theirs
(`over_reference`), the same ratio of processor time, our tokens per second, the processor time
over the wall time of both, and how many processes wanted a core (`load`, the mean of a minute).
The contenders take turns, as in `benchmarks.step_time`, and both get the huge pages that
`make study` sets. On a machine that does other work too, PyTorch's threads lose time waiting for
each other, so that wall time flatters us; pinned to one core (`taskset -c 0`), the ratio of
processor time depends on other work least. This needs torch and transformers, which the extra
`parity` installs.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
from typing import Any

import jax
import numpy as np

from benchmarks import step_time
from benchmarks.step_time import Shape, Turn, batch_of, settings
from train.run.optimizers import make_optimizer
from train.run.step import init_state, make_model, make_train_step
from train.study.config import OptimizerConfig

REFERENCES = {"transformer": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}
RATE = 1e-3
ADAMW = OptimizerConfig("adamw", beta2=0.95, weight_decay=0.1)


# GPT-2's heads together are as wide as the model, so `tiny` gets twice as many.
SHAPES = {
    "d64": Shape("micro", 2048, 16, 0, 128, "decoder_only"),
    "d128": Shape("centi-DL4", 4096, 16, 0, 128, "decoder_only"),
    "d256": Shape("tiny-NH8", 8192, 8, 0, 256, "decoder_only"),
}


def ours(name: str, shape: Shape) -> Turn:
    """A training step as the trainer runs it."""
    cfg, stage = settings(name, shape)
    stage = dataclasses.replace(stage, optimizer=ADAMW)
    model, params = make_model(cfg, 0)
    optimizer = make_optimizer(stage.optimizer, model.axes)
    state, batch = jax.device_put(
        (init_state(params, optimizer), batch_of(shape)), jax.devices()[0]
    )
    rate, seed = np.float32(RATE), np.uint32(0)
    jitted = jax.jit(make_train_step(model, optimizer, stage), donate_argnums=0)
    step = jitted.lower(state, batch, rate, seed).compile()

    def one() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch, rate, seed)
        return metrics["loss"]

    return step_time.in_flight(one)


def theirs(name: str, shape: Shape) -> Turn:
    """The same step of Hugging Face's model."""
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    cfg, _ = settings(name, shape)
    given: dict[str, Any] = dict(
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.embed_dim,
        num_hidden_layers=cfg.num_decoder_layers,
        num_attention_heads=cfg.num_heads,
        max_position_embeddings=shape.target_length,
        bos_token_id=1,
        eos_token_id=1,
        use_cache=False,
    )
    if name == "llama":
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(intermediate_size=cfg.mlp_dim, **given)
        )
    else:
        dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_inner=cfg.mlp_dim, activation_function="relu", **dropout, **given
            )
        )
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=RATE,
        betas=(ADAMW.beta1, ADAMW.beta2),
        weight_decay=ADAMW.weight_decay,
        fused=True,
    )
    ids = torch.from_numpy(batch_of(shape)["decoder_target_tokens"]).long()

    def turn(steps: int) -> None:
        for _ in range(steps):
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return turn


def compare(shape_name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one shape."""
    shape = SHAPES[shape_name]
    names = options.architectures.split(",")
    turns = {name: ours(name, shape) for name in names}
    turns |= {REFERENCES[name]: theirs(name, shape) for name in names}
    found = step_time.measure(turns, options.rounds, options.seconds)
    rows = []
    for name in names:
        (seconds, cores), (reference, reference_cores) = found[name], found[REFERENCES[name]]
        rows.append(
            {
                "shape": shape_name,
                "name": name,
                "reference": REFERENCES[name],
                "seconds": seconds,
                "reference_seconds": reference,
                "over_reference": seconds / reference,
                "processor_over_reference": seconds * cores / (reference * reference_cores),
                "tokens_per_second": shape.batch_size * shape.target_length / seconds,
                "cores": cores,
                "reference_cores": reference_cores,
                "load": os.getloadavg()[0],
            }
        )
    return rows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default=",".join(SHAPES), help="(default: %(default)s)")
    parser.add_argument(
        "--architectures", default=",".join(REFERENCES), help="(default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="number of turns of each contender (default: 7)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="seconds per turn, at least one step (default: 1)",
    )
    options = parser.parse_args()
    for key, allowed in (("shapes", SHAPES), ("architectures", REFERENCES)):
        if unknown := set(getattr(options, key).split(",")) - set(allowed):
            parser.error(
                f"--{key}: {', '.join(sorted(unknown))} is not one of {', '.join(allowed)}"
            )
    rows = []
    for shape in options.shapes.split(","):
        rows += compare(shape, options)
        for row in rows[-len(options.architectures.split(",")) :]:
            print(
                f"{row['shape']:8}{row['name']:14}{row['seconds']:10.4f} s/step"
                f"{row['over_reference']:8.2f} of {row['reference']}, processor time"
                f"{row['processor_over_reference']:6.2f}",
                file=sys.stderr,
            )
    device = f"{jax.devices()[0].device_kind}, {platform.processor() or platform.machine()}"
    print(json.dumps({"device": device, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

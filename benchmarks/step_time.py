"""Measures a training step of every architecture, and compares the time with its FLOPs.

    python -m benchmarks.step_time  # every architecture at d128 4+4
    python -m benchmarks.step_time --shapes d64,d128 --architectures transformer,switch --reference
    python -m benchmarks.step_time --shapes base4 --dtype bfloat16  # on a GPU
    python -m benchmarks.step_time --shapes base,large --dtype bfloat16 --variants as_is,xla
    python -m benchmarks.step_time --shapes lm_d64  # decoder-only models

Prints a table on stderr and JSON on stdout: seconds per step; target and input tokens per second;
GFLOP/s over the ceiling of matrix products measured in the same run and, where it is known, over
the peak of the device's data sheet (`mfu`); bytes that the compiled step holds; and for each
architecture `excess`, its time over the Transformer's divided by its FLOPs over the Transformer's.
With several `--variants` each architecture is measured in each of them, and all are compared with
the Transformer in the first one. `cores` is processor time over wall time. If on a CPU an
architecture has an excess and uses fewer cores than the Transformer, XLA does some of its work in
one thread, and the excess disappears if the script is pinned to one core (`taskset -c 0`). `update`
is the time of the optimizer's update alone: it grows with the number of parameters, including those
of all experts, and is not part of the FLOPs. `gradients` is the excess of the rest of the step.

The contenders take turns of about `--seconds` each, round after round, and the median round counts,
because single runs on a shared machine differ by 20 %. The first step of a turn is not counted,
because the contender before it may have left work behind. As in the trainer's loop, one step is
running while the next is submitted. With `--processes`, several processes measure one after the
other, and every number, including ratios, is the median over them.

With `--reference`, Hugging Face's T5 and its Switch Transformers (PyTorch, eager, Adafactor) are
measured at the same training step; `over_reference` is our time over theirs. This needs torch and
transformers, which the extra `parity` installs. With `--lean`, the vanilla step written in plain
jnp (`lean_step.py`) is measured as well.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import arch_zoo
from arch_zoo.layers import experts, fused_attention
from benchmarks import lean_step
from train.data.batch_shape import BatchShape
from train.data.layouts import LAYOUTS
from train.run import losses
from train.run.optimizers import make_optimizer
from train.run.step import State, init_state, make_model, make_train_step
from train.run.tracking import PEAK_FLOPS
from train.study.config import OptimizerConfig, StageConfig

Turn = Callable[[int], None]  # runs that many steps and waits for the last

COLUMNS = (
    "s/step",
    "update",
    "GFLOP/s",
    "MFU",
    "MB",
    "cores",
    "time x",
    "FLOPs x",
    "excess",
    "gradients",
    "over HF",
)
# By variant, the context in which a step is traced, and further options of the compiler.
VARIANTS: dict[
    str, tuple[Callable[[], contextlib.AbstractContextManager[None]], dict[str, bool | str]]
] = {
    "as_is": (contextlib.nullcontext, {}),
    "xla": (fused_attention.disallowed, {}),  # never cuDNN's attention
    "cublas": (
        contextlib.nullcontext,
        {"xla_gpu_enable_triton_gemm": False},
    ),  # every product by cuBLAS
}
REFERENCES = {"transformer": "hugging_face_t5", "switch": "hugging_face_switch"}


@dataclasses.dataclass(frozen=True)
class Shape:
    """A size, a vocabulary, and the batch to train on; a language model has no inputs."""

    size: str
    vocab_size: int
    batch_size: int = 16
    input_length: int = 128
    target_length: int = 32
    family: str = "encoder_decoder"

    @property
    def batch(self) -> BatchShape:
        """The batch."""
        return BatchShape(self.batch_size, self.input_length, self.target_length, self.family)


SHAPES = {
    "d64": Shape("micro", 2000),
    "d128": Shape("centi-NL4", 2000),
    "d256": Shape("tiny", 4000),
    "small": Shape("small", 32128),
    "base4": Shape("base-NL4", 32128, 128, 512, 114),
    "base": Shape("base", 32128, 128, 512, 114),
    "base256": Shape("base", 32128, 256, 512, 114),
    "large": Shape("large", 32128, 128, 512, 114),
    "lm_d64": Shape("micro", 2000, 16, 0, 128, "decoder_only"),
    "lm_d128": Shape("centi-NL4", 2000, 16, 0, 128, "decoder_only"),
    "lm_d256": Shape("tiny", 4000, 16, 0, 128, "decoder_only"),
    "lm_base4": Shape("base-NL4", 32128, 64, 0, 1024, "decoder_only"),
    "lm_base": Shape("base", 32128, 64, 0, 1024, "decoder_only"),
    "lm_large": Shape("large", 32128, 64, 0, 1024, "decoder_only"),
}


def batch_of(shape: Shape) -> dict[str, Any]:
    """Full sequences of random tokens."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(
        2, shape.vocab_size, (shape.batch_size, shape.input_length), dtype=np.int32
    )
    targets = rng.integers(
        2, shape.vocab_size, (shape.batch_size, shape.target_length), dtype=np.int32
    )
    return dict(LAYOUTS[shape.family].batch(inputs, targets))


def settings(
    name: str, shape: Shape, dtype: str = "float32"
) -> tuple[arch_zoo.ModelConfig, StageConfig]:
    """The model and the stage of an architecture at a shape."""
    stage = StageConfig(1, shape.batch_size, optimizer=OptimizerConfig())
    cfg = arch_zoo.config(
        name,
        shape.size,
        vocab_size=shape.vocab_size,
        dtype=dtype,
        family=shape.family,
        **shape.batch.limits,
    )
    return cfg, stage


class Contender(NamedTuple):
    """A training step as the trainer runs it, the optimizer's update alone, FLOPs and bytes."""

    turn: Turn
    update: Turn
    flops: int
    held: int


def ours(name: str, shape: Shape, dtype: str, variant: str) -> Contender:
    """The contender for an architecture of the zoo."""
    cfg, stage = settings(name, shape, dtype)
    model, params = make_model(cfg, 0)
    optimizer = make_optimizer(stage.optimizer, model.axes)
    state, batch = jax.device_put(
        (init_state(params, optimizer), batch_of(shape)), jax.devices()[0]
    )
    rate = np.float32(0.01)
    jitted = jax.jit(make_train_step(model, optimizer, stage), donate_argnums=0)
    tracing, options = VARIANTS[variant]
    with tracing():
        step = jitted.lower(state, batch, rate, np.uint32(0)).compile(options)

    def one() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch, rate, np.uint32(0))
        return metrics["loss"]

    def only_update(state: State) -> State:
        # Parameters stand in for gradients, since the time does not depend on the values. This way
        # no further memory is needed.
        grads: Any = {name: -p for name, p in state.params.items()}
        directions: Any
        directions, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = {name: p - rate * directions[name] for name, p in state.params.items()}
        return State(state.step, params, optimizer_state)

    update = jax.jit(
        only_update
    )  # a compiled object would take longer than a GPU to handle hundreds of arrays
    jax.block_until_ready(update(state))
    executed = arch_zoo.Convention(experts="padded")  # empty places of experts are computed too
    count = arch_zoo.count_flops(
        cfg,
        *shape.batch.counted_lengths.values(),
        convention=executed,
        batch_size=shape.batch_size,
    )
    flops = count.train * shape.batch_size
    memory: Any = step.memory_analysis()
    held = (
        memory.argument_size_in_bytes + memory.temp_size_in_bytes
    )  # the donated state is updated in place
    return Contender(in_flight(one), in_flight(lambda: update(state)), flops, held)


def in_flight(step: Callable[[], Any]) -> Turn:
    """Turns of a step that returns before the device is done.

    Each step waits for the one before it, as in the trainer.
    """

    def turn(steps: int) -> None:
        last = None
        for _ in range(steps):
            last, before = step(), last
            jax.block_until_ready(before)
        jax.block_until_ready(last)

    return turn


def lean(shape: Shape) -> Turn:
    """The vanilla step in plain jnp, which has the same loss."""
    cfg, stage = settings("transformer", shape)
    model, params = make_model(cfg, 0)
    optimizer = make_optimizer(stage.optimizer, model.axes)
    batch = batch_of(shape)
    theirs, _ = losses.token_sums(
        losses.token_losses(model.merge(params), batch, jax.random.key(0)), batch
    )
    own = lean_step.loss(params, batch, cfg) * batch["decoder_loss_weights"].sum()
    np.testing.assert_allclose(own, theirs, rtol=1e-5)
    step = jax.jit(lean_step.make_step(cfg, optimizer, 0.01), donate_argnums=(0, 1))
    state = optimizer.init(params)

    def one() -> jax.Array:
        nonlocal params, state
        params, state, loss = step(params, state, batch)
        return loss

    return in_flight(one)


def hugging_face(name: str, shape: Shape) -> Turn:
    """The same training step of Hugging Face's T5 or Switch Transformers."""
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    cfg = arch_zoo.config(name, shape.size, vocab_size=shape.vocab_size)
    given: dict[str, Any] = dict(
        vocab_size=shape.vocab_size,
        d_model=cfg.embed_dim,
        d_kv=cfg.head_dim,
        d_ff=cfg.mlp_dim,
        num_layers=cfg.num_encoder_layers,
        num_decoder_layers=cfg.num_decoder_layers,
        num_heads=cfg.num_heads,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    if name == "switch":
        switch: Any = cfg.architecture
        given |= {
            "num_experts": switch.num_experts,
            "num_sparse_encoder_layers": cfg.num_encoder_layers // switch.every,
            "num_sparse_decoder_layers": cfg.num_decoder_layers // switch.every,
            "expert_capacity": experts.capacity(
                shape.input_length, switch.num_experts, switch.train_capacity_factor
            ),
        }
        model = transformers.SwitchTransformersForConditionalGeneration(
            transformers.SwitchTransformersConfig(**given)
        )
    else:
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**given))
    model.train()
    optimizer = transformers.Adafactor(
        model.parameters(), lr=0.01, relative_step=False, warmup_init=False
    )
    batch = {
        name: torch.from_numpy(x).long() for name, x in batch_of(shape).items() if "tokens" in name
    }

    def turn(steps: int) -> None:
        for _ in range(steps):
            out = model(
                input_ids=batch["encoder_input_tokens"], labels=batch["decoder_target_tokens"]
            )
            out.loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return turn


def matmul_ceiling(dtype: str) -> float:
    """FLOP/s of one large product of square matrices."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)  # a GPU is faster on ones
    product = jax.jit(jnp.matmul)
    turn = in_flight(lambda: product(a, a))
    return 2 * size**3 / min(timed(turn, 4) for _ in range(8))


def timed(turn: Turn, steps: int) -> float:
    """Seconds per step."""
    start = time.perf_counter()
    turn(steps)
    return (time.perf_counter() - start) / steps


def measure(
    turns: dict[str, Turn], rounds: int, turn_seconds: float
) -> dict[str, tuple[float, float]]:
    """The median seconds per step of every contender, and the cores it used.

    Every contender has a turn in each round.
    """
    counts = {}
    for name, turn in turns.items():
        turn(1)  # compiles
        counts[name] = max(1, round(turn_seconds / timed(turn, 2)))
    seconds, processor = ({name: [] for name in turns} for _ in range(2))
    for number in range(rounds):
        order = list(turns) if number % 2 == 0 else list(turns)[::-1]
        for name in order:
            turns[name](1)
            start = time.process_time()
            seconds[name].append(timed(turns[name], counts[name]))
            processor[name].append((time.process_time() - start) / counts[name])
    return {
        name: (statistics.median(times), sum(processor[name]) / sum(times))
        for name, times in seconds.items()
    }


def compare(shape_name: str, options: argparse.Namespace) -> list[dict]:
    """The rows of one shape."""
    shape = dataclasses.replace(
        SHAPES[shape_name], batch_size=options.batch_size or SHAPES[shape_name].batch_size
    )
    every = [name for name in arch_zoo.names() if shape.family in arch_zoo.get(name).families]
    names = options.architectures.split(",") if options.architectures else every
    names = ["transformer", *(name for name in names if name != "transformer")]
    first, *others = options.variants.split(",")
    titles = {name: (name, first) for name in names}
    titles |= {f"{name}, {other}": (name, other) for other in others for name in names}
    with concurrent.futures.ThreadPoolExecutor(
        os.cpu_count()
    ) as pool:  # in parallel, since compilation takes most of the time
        made = pool.map(
            lambda title: ours(title[0], shape, options.dtype, title[1]), titles.values()
        )
        contenders = dict(zip(titles, made, strict=True))
    turns = {name: contender.turn for name, contender in contenders.items()}
    references = {
        name: REFERENCES[name]
        for name in names
        if name in REFERENCES and options.reference and shape.family == "encoder_decoder"
    }
    turns |= {reference: hugging_face(name, shape) for name, reference in references.items()}
    turns |= {"lean_jnp": lean(shape)} if options.lean else {}
    seconds = measure(turns, options.rounds, options.seconds)
    updates = measure(
        {name: contender.update for name, contender in contenders.items()}, 3, options.seconds / 3
    )
    ceiling, peak = matmul_ceiling(options.dtype), PEAK_FLOPS.get(jax.devices()[0].device_kind)
    vanilla = contenders["transformer"].flops
    vanilla_gradients = seconds["transformer"][0] - updates["transformer"][0]
    tokens = shape.batch_size * (shape.input_length + shape.target_length)
    same = {reference: name for name, reference in references.items()}
    rows = []
    for name, (second, cores) in seconds.items():
        contender = contenders.get(same.get(name, name), contenders["transformer"])
        count, held = contender.flops, contender.held
        time_ratio, flop_ratio = second / seconds["transformer"][0], count / vanilla
        update = updates[name][0] if name in contenders else None
        gradients = second - update if update else None
        rows.append(
            {
                "shape": shape_name,
                "name": name,
                "seconds": second,
                "update_seconds": update,
                "cores": cores,
                "tokens_per_second": tokens / second,
                "gflops_per_second": count / second * 1e-9,
                "of_matmul_ceiling": count / second / ceiling,
                "mfu": peak and count / second / peak,
                "bytes": held if name in contenders else None,
                "time_ratio": time_ratio,
                "flop_ratio": flop_ratio,
                "excess": time_ratio / flop_ratio,
                "gradients_excess": gradients and gradients / vanilla_gradients / flop_ratio,
                "over_reference": second / seconds[references[name]][0]
                if name in references
                else None,
            }
        )
    return rows


def over_processes(count: int, arguments: list[str]) -> list[dict]:
    """Rows in which every number is the median over separate processes."""
    command = [sys.executable, "-m", "benchmarks.step_time", *arguments, "--processes", "1"]
    runs = [
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        for _ in range(count)
    ]
    rows = []
    for same in zip(*(run["rows"] for run in runs), strict=True):
        numbers = {key for key, value in same[0].items() if isinstance(value, (int, float))}
        rows.append(same[0] | {key: statistics.median(row[key] for row in same) for key in numbers})
    return rows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="d128", help=f"of {', '.join(SHAPES)} (default: d128)")
    parser.add_argument("--batch-size", type=int, help="sequences of a step (default: the shape's)")
    parser.add_argument(
        "--architectures", default="", help="names, separated by commas (default: the whole zoo)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of turns of each contender (default: 5)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="seconds per turn, at least one step (default: 1)",
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="processes to measure with, in turn (default: 1)"
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--reference", action="store_true", help="measure Hugging Face's models as well"
    )
    parser.add_argument(
        "--lean", action="store_true", help="measure the vanilla step in plain jnp too (float32)"
    )
    parser.add_argument(
        "--variants", default="as_is", help="as_is, xla (no cuDNN attention), cublas (no Triton)"
    )
    options = parser.parse_args()
    for key, allowed in (("shapes", SHAPES), ("variants", VARIANTS)):
        if unknown := set(getattr(options, key).split(",")) - set(allowed):
            parser.error(
                f"--{key}: {', '.join(sorted(unknown))} is not one of {', '.join(allowed)}"
            )
    if options.batch_size is not None and options.batch_size < 1:
        parser.error(f"--batch-size: {options.batch_size} must be at least 1")
    if options.processes > 1:
        rows = over_processes(options.processes, sys.argv[1:])
    else:
        rows = [row for shape in options.shapes.split(",") for row in compare(shape, options)]
    print(f"{'shape':8}{'name':20}{''.join(f'{title:>10}' for title in COLUMNS)}", file=sys.stderr)
    for row in rows:
        ours_only = ("update_seconds", "bytes", "gradients_excess", "over_reference")
        update, held, rest, ratio, mfu = (row[key] or float("nan") for key in (*ours_only, "mfu"))
        numbers = (
            mfu,
            held * 1e-6,
            row["cores"],
            row["time_ratio"],
            row["flop_ratio"],
            row["excess"],
            rest,
            ratio,
        )
        line = f"{row['shape']:8}{row['name']:20}{row['seconds']:10.4f}{update:10.4f}"
        line += f"{row['gflops_per_second']:10.1f}"
        print(line + "".join(f"{number:10.2f}" for number in numbers), file=sys.stderr)
    device = f"{jax.devices()[0].device_kind}, {platform.processor() or platform.machine()}"
    about = {
        "device": device,
        "jax": jax.__version__,
        "variants": options.variants,
        "dtype": options.dtype,
    }
    print(json.dumps({**about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

"""What a training step moves on a GPU that need not be present: compiled for an H200, by kernel.

    python -m benchmarks.gpu_traffic  # the zoo at base-NL4, ten minutes on 2 cores
    python -m benchmarks.gpu_traffic --architectures evolved --kernels 20

Needs JAX's CUDA plugin (`pip install "jax[cuda13]"`, of the same release as JAX), but no GPU.
Prints a table on stderr and JSON on stdout. For each architecture it shows: the bytes that the
compiled step holds; the number of kernels that it starts; the bytes that they read and write in
products, in cuDNN's attention and in the `rest`; and the milliseconds of the rest at the data
sheet's bandwidth. The rest does little else than move bytes, so this is a lower bound of its time.
For comparison it shows the time of the FLOPs at the data sheet's peak. `--kernels` lists the
kernels of the rest that move most, by the part of the model that they belong to.

A kernel reads its operands and writes its results once. If it reads a slice or by index, only the
part that it reads counts; if it updates in place, only the part that it writes; the body of a loop
counts as often as it runs. The time of products and attention is not estimated, because that needs
the device. Products are left to cuBLAS, because XLA would have to time other kernels to choose
them.
"""

import argparse
import collections
import contextlib
import functools
import json
import math
import re
import sys
import time
import unittest.mock
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import topologies

import arch_zoo
from benchmarks.step_time import SHAPES, VARIANTS, Shape, batch_of, settings
from train.run.optimizers import make_optimizer
from train.run.step import init_state, make_model, make_train_step
from train.run.tracking import PEAK_FLOPS

# What XLA needs to know about a device in order to compile for it: NVIDIA's data sheet and CUDA's
# limits for compute capability 9.0.
NAME, BANDWIDTH = "NVIDIA H200", 4.8e12
TARGET = f"""
gpu_device_info {{
  name: "{NAME}" device_vendor: "NVIDIA Corporation" device_address_bits: 64
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 memory_bandwidth: {BANDWIDTH:.0f}
  device_memory_size: 151397597184 l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
}}
platform_name: "CUDA" device_description_str: "{NAME}" dnn_version_info {{ major: 9 minor: 10 }}
"""
# What JAX asks a device before it calls cuDNN.
ANSWERS = {
    "check_cudnn_version": 91000,
    "check_compute_capability": True,
    "is_cuda_compute_capability_equal": False,
}

COLUMNS = (
    "held MB",
    "kernels",
    "products",
    "attention",
    "rest MB",
    "rest ms",
    "FLOPs ms",
    "compiled s",
)
_WIDTHS = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "f64": 8,
    "s64": 8,
    "u64": 8,
}
_COMPUTATION = re.compile(r"(ENTRY )?%([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_NO_KERNEL = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "call")
)
_IN_PARTS = frozenset(("dynamic-slice", "slice", "gather"))


class Instruction(NamedTuple):
    """A line of a compiled program."""

    root: bool
    name: str
    shape: str
    operation: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """The names of its operands."""
        return re.findall(r"%([\w.-]+)", self.rest.partition(")")[0])

    def attribute(self, pattern: str) -> str:
        """The first group of a pattern searched after the operands; empty if it is not found."""
        found = re.search(pattern, self.rest)
        return found.group(1) if found else ""


class Kernel(NamedTuple):
    """A kernel, the number of times that it is started, and the bytes that all its runs move."""

    kind: str  # product, attention or rest
    source: str  # the part of the model, by JAX's names
    shape: str
    runs: int
    moved: int


Program = dict[str, list[Instruction]]


def parse(text: str) -> tuple[Program, str]:
    """The computations of a compiled program, and the name of its entry computation."""
    program: Program = {}
    entry = body = ""
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            body = start.group(2)
            program[body], entry = [], body if start.group(1) else entry
        elif body and (found := _INSTRUCTION.match(line)):
            root, *others = found.groups()
            program[body].append(Instruction(bool(root), *others))
    return program, entry


def size(shape: str) -> int:
    """The bytes of an array, or of all arrays of a tuple."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(
        _WIDTHS.get(dtype, 0) * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in arrays
    )


def kernels(program: Program, computation: str, runs: int = 1) -> Iterator[Kernel]:
    """The kernels that a computation starts, including those of what it calls."""
    shapes = {instruction.name: instruction.shape for instruction in program[computation]}
    for instruction in program[computation]:
        if instruction.operation == "while":
            trips = int(instruction.attribute(r'known_trip_count":\{"n":"(\d+)"') or 1)
            yield from kernels(program, instruction.attribute(r"body=%([\w.-]+)"), runs * trips)
        elif instruction.operation == "call":
            yield from kernels(program, instruction.attribute(r"to_apply=%([\w.-]+)"), runs)
        elif instruction.operation not in _NO_KERNEL and not instruction.operation.endswith(
            "-done"
        ):
            called = instruction.attribute(r"calls=%([\w.-]+)")
            moved = _moved(program[called]) if called in program else _whole(instruction, shapes)
            target = instruction.rest + "".join(inner.rest for inner in program.get(called, ()))
            kind = (
                "attention"
                if "__cudnn$fmha" in target
                else "product"
                if "__cublas$" in target
                else "rest"
            )
            source = re.sub(r"jit\(\w+\)/", "", instruction.attribute(r'op_name="([^"]*)"'))
            yield Kernel(kind, source, instruction.shape, runs, runs * moved)


def _whole(instruction: Instruction, shapes: dict[str, str]) -> int:
    return size(instruction.shape) + sum(
        size(shapes.get(name, "")) for name in instruction.operands
    )


def _moved(body: list[Instruction]) -> int:
    """The bytes that a fused computation reads and writes."""
    shapes = {instruction.name: instruction.shape for instruction in body}
    uses = collections.defaultdict(list)
    for instruction in reversed(body):  # users first, since what reads a bitcast reads its operand
        for position, name in enumerate(instruction.operands):
            uses[name] += (
                uses[instruction.name]
                if instruction.operation == "bitcast"
                else [(instruction, position)]
            )
    moved = sum(size(instruction.shape) for instruction in body if instruction.root)
    for parameter in (instruction for instruction in body if instruction.operation == "parameter"):
        read = 0
        for user, position in uses[parameter.name]:
            if user.operation in _IN_PARTS and position == 0:
                read += size(user.shape)
            elif user.operation == "dynamic-update-slice" and position == 0:
                moved += size(shapes[user.operands[1]]) - size(
                    parameter.shape
                )  # the rest of the result stays as it is
            else:
                read = size(parameter.shape)
        moved += min(read, size(parameter.shape))
    return moved


def compiled(name: str, shape: Shape) -> tuple[Any, float]:
    """The compiled training step of an architecture in bfloat16, and the seconds of compilation."""
    target = {"topology": "1x1x1", "target_config": TARGET}
    (device,) = topologies.get_topology_desc(platform="cuda", topology_name=NAME, **target).devices
    with contextlib.ExitStack() as stack:
        stack.enter_context(unittest.mock.patch.object(jax, "default_backend", lambda: "gpu"))
        for question, answer in ANSWERS.items():
            patch = functools.partial(lambda answer, *_: answer, answer)
            stack.enter_context(
                unittest.mock.patch.object(fused_attention_stablehlo, question, patch)
            )
        cfg, stage = settings(name, shape, "bfloat16")
        model, params = make_model(cfg, 0)
        optimizer = make_optimizer(stage.optimizer, model.axes)
        state = jax.eval_shape(functools.partial(init_state, optimizer=optimizer), params)
        arguments = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(device)
            ),
            (state, batch_of(shape), np.float32(0), np.uint32(0)),
        )
        lowered = jax.jit(make_train_step(model, optimizer, stage), donate_argnums=0).lower(
            *arguments
        )
    start = time.monotonic()
    return lowered.compile(VARIANTS["cublas"][1]), time.monotonic() - start


def measure(name: str, shape: Shape, largest: int) -> dict[str, Any]:
    """The printed numbers of an architecture."""
    step, seconds = compiled(name, shape)
    memory = step.memory_analysis()
    found = list(kernels(*parse(step.as_text())))
    moved = collections.Counter()
    parts: collections.Counter[tuple[str, str]] = collections.Counter()
    for kernel in found:
        moved[kernel.kind] += kernel.moved
        if kernel.kind == "rest":
            parts[kernel.source, kernel.shape.partition("{")[0]] += kernel.moved
    cfg, _ = settings(name, shape)
    executed = arch_zoo.Convention(experts="padded")  # empty places of experts are computed too
    count = arch_zoo.count_flops(
        cfg,
        *shape.batch.counted_lengths.values(),
        convention=executed,
        batch_size=shape.batch_size,
    )
    listed = [
        {"source": source, "shape": of, "bytes": number}
        for (source, of), number in parts.most_common(largest)
    ]
    return {
        "name": name,
        "held_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes,
        "kernels": sum(kernel.runs for kernel in found),
        "product_bytes": moved["product"],
        "attention_bytes": moved["attention"],
        "rest_bytes": moved["rest"],
        "rest_ms": moved["rest"] / BANDWIDTH * 1e3,
        "flops_ms": count.train * shape.batch_size / PEAK_FLOPS[NAME] * 1e3,
        "compile_seconds": seconds,
        **({"largest": listed} if largest else {}),
    }


def main() -> None:
    """Compiles and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="base4", choices=SHAPES, help="(default: base4)")
    parser.add_argument(
        "--architectures", default="", help="names, separated by commas (default: the whole zoo)"
    )
    parser.add_argument(
        "--kernels", type=int, default=0, help="parts of the rest to list (default: none)"
    )
    options = parser.parse_args()
    jax.config.update(
        "jax_platforms", "cpu"
    )  # this process runs on the CPU; a GPU that is present is not used
    shape = SHAPES[options.shape]
    every = [name for name in arch_zoo.names() if shape.family in arch_zoo.get(name).families]
    names = options.architectures.split(",") if options.architectures else every
    print(f"{'':12}{''.join(f'{title:>11}' for title in COLUMNS)}", file=sys.stderr)
    rows = []
    for name in names:
        try:
            row = measure(name, shape, options.kernels)
        except NotImplementedError:
            parser.error('JAX has no CUDA plugin here: pip install "jax[cuda13]"')
        rows.append(row)
        megabytes = (row[f"{key}_bytes"] * 1e-6 for key in ("held", "product", "attention", "rest"))
        held, products, attention, rest = megabytes
        numbers = (held, row["kernels"], products, attention, rest, row["rest_ms"], row["flops_ms"])
        print(
            f"{name:12}{''.join(f'{n:11.1f}' for n in (*numbers, row['compile_seconds']))}",
            file=sys.stderr,
        )
        for part in row.get("largest", ()):
            print(
                f"{part['bytes'] * 1e-6:23.0f}  {part['shape']}  {part['source']}", file=sys.stderr
            )
    about = {"device": NAME, "jax": jax.__version__, "shape": options.shape, "dtype": "bfloat16"}
    print(json.dumps({**about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

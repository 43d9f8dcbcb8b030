"""Lowers programs for a GPU on a machine without one.

JAX checks shapes and types and writes out every call, but nothing is compiled or run.
"""

import re

from jax._src.cudnn import fused_attention_stablehlo

from arch_zoo.layers import fused_attention
from benchmarks import gpu_traffic


def pretend_a_gpu(monkeypatch) -> None:
    """Makes attention choose as on a GPU, and answers what JAX would ask the GPU."""
    for question, answer in gpu_traffic.ANSWERS.items():
        monkeypatch.setattr(fused_attention_stablehlo, question, lambda *_, answer=answer: answer)
    choose = fused_attention.implementation
    monkeypatch.setattr(
        fused_attention, "implementation", lambda q, k, ctx: choose(q, k, ctx, "gpu")
    )


def program(function, *args) -> str:
    """The text of a jitted function lowered for CUDA, before compilation."""
    return function.trace(*args).lower(lowering_platforms=("cuda",)).as_text()


def calls_of_cudnn(text: str) -> tuple[int, int]:
    """Counts the calls of cuDNN's attention in a program, forward and backward."""
    return tuple(
        len(re.findall(rf"@__cudnn\$fmha(?:ScaleBias)?Softmax{which}\(", text))
        for which in ("", "Backward")
    )

"""Programs for a GPU, as far as they go without one.

JAX checks shapes and types and writes out every call.
"""

import re

from jax._src.cudnn import fused_attention_stablehlo

from arch_zoo.layers import fused_attention
from benchmarks import gpu_traffic


def pretend_a_gpu(monkeypatch) -> None:
    """Attention is chosen as on a GPU, and what JAX would ask of one is answered for it."""
    for question, answer in gpu_traffic.ANSWERS.items():
        monkeypatch.setattr(fused_attention_stablehlo, question, lambda *_, answer=answer: answer)
    choose = fused_attention.implementation
    monkeypatch.setattr(
        fused_attention, "implementation", lambda q, k, ctx: choose(q, k, ctx, "gpu")
    )


def program(function, *args) -> str:
    """What a jitted function is for CUDA, before it is compiled."""
    return function.trace(*args).lower(lowering_platforms=("cuda",)).as_text()


def calls_of_cudnn(text: str) -> tuple[int, int]:
    """Calls of cuDNN's attention in a program, with a bias or without: forward and backward."""
    return tuple(
        len(re.findall(rf"@__cudnn\$fmha(?:ScaleBias)?Softmax{which}\(", text))
        for which in ("", "Backward")
    )

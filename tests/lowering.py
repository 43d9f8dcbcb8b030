"""Programs for a GPU, as far as they go without one: JAX checks shapes and types and writes out every call."""

from jax._src.cudnn import fused_attention_stablehlo

from arch_zoo.layers import fused_attention


def pretend_a_gpu(monkeypatch) -> None:
    """Attention is chosen as on a GPU, and what JAX would ask of one is answered for it."""
    answers = {
        "check_cudnn_version": 91000,
        "check_compute_capability": True,
        "is_cuda_compute_capability_equal": False,
    }
    for question, answer in answers.items():
        monkeypatch.setattr(fused_attention_stablehlo, question, lambda *_, answer=answer: answer)
    choose = fused_attention.implementation
    monkeypatch.setattr(fused_attention, "implementation", lambda q, k, ctx: choose(q, k, ctx, "gpu"))


def calls_of_cudnn(function, *args) -> tuple[int, int]:
    """Calls of cuDNN's attention in a jitted function lowered for CUDA: forward and backward."""
    program = function.trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    return program.count("@__cudnn$fmhaScaleBiasSoftmax("), program.count("@__cudnn$fmhaScaleBiasSoftmaxBackward(")

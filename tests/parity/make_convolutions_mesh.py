"""Goldens of lightweight and dynamic convolutions in Mesh TensorFlow's form.

Its LocalConvAttnBlock, in either stack. Recipe: the environment of `mesh_tf`, then, from the root
of the checkout, `python -m tests.parity.make_convolutions_mesh`.
"""

import itertools

import numpy as np

from tests.parity import mesh_tf
from tests.parity.mesh_tf import transformer_layers

DIM, WIDTH = 12, 5
COMMON: mesh_tf.Names = {
    "linear.kernel": mesh_tf.one("local_conv_inp_0/kernel"),
    "linear.bias": mesh_tf.one("local_conv_inp_0/bias"),
    "gate.kernel": mesh_tf.one("local_conv_inp_1/kernel"),
    "gate.bias": mesh_tf.one("local_conv_inp_1/bias"),
    "bias": mesh_tf.one("separable_conv1d/depthwise_conv_hack/depthwise_dense_0/bias"),
    "pointwise.kernel": mesh_tf.one("separable_conv1d/pointwise_dense/kernel"),
    "pointwise.bias": mesh_tf.one("separable_conv1d/pointwise_dense/bias"),
    "out.kernel": mesh_tf.one("local_conv_attn_op_projection/kernel"),
    "out.bias": mesh_tf.one("local_conv_attn_op_projection/bias"),
}


KERNELS: dict[str, mesh_tf.Names] = {
    "lightweight_conv": {"kernel": mesh_tf.stacked("lightwt_depthwise_dense_{}/kernel", WIDTH)},
    "dynamic_conv": {
        "kernel": mesh_tf.stacked("dyn_conv_depthwise_dense_{}/kernel", WIDTH),
        "kernel_bias": mesh_tf.stacked("dyn_conv_depthwise_dense_{}/bias", WIDTH),
    },
}


def main() -> None:
    """Writes the goldens."""
    segment_ids = (np.arange(9) < np.array([[9], [6]])).astype(np.int32)
    for (name, kind), side in itertools.product(
        (("lconv", "lightweight_conv"), ("dconv", "dynamic_conv")), ("encoder", "decoder")
    ):
        causal = side == "decoder"
        first, last = (1 - WIDTH, 0) if causal else (-(WIDTH // 2), WIDTH // 2)
        block = transformer_layers.LocalConvAttnBlock(
            min_relative_pos=first, max_relative_pos=last, output_size=DIM, attention_type=kind
        )
        model = {"name": name, "size": "nano", "form": "mesh", "widths": (WIDTH,), "embed_dim": DIM}
        layer = f"{side}.blocks.0.self_attention.layer"
        golden = mesh_tf.golden(
            block.call, model, layer, segment_ids, DIM, COMMON | KERNELS[kind], causal
        )
        golden.save(f"{name}-mesh-{side}")


if __name__ == "__main__":
    main()

"""Goldens of the lightweight convolution in Mesh TensorFlow's form: its LocalConvAttnBlock, one layer of either stack.

Recipe: the environment of `mesh_tf`, then, from the root of the checkout, `python -m tests.parity.make_lconv_mesh`.
"""

import numpy as np

from tests.parity import mesh_tf
from tests.parity.mesh_tf import transformer_layers

DIM, WIDTH = 12, 5
NAMES: mesh_tf.Names = {
    "linear.kernel": mesh_tf.one("local_conv_inp_0/kernel"),
    "linear.bias": mesh_tf.one("local_conv_inp_0/bias"),
    "gate.kernel": mesh_tf.one("local_conv_inp_1/kernel"),
    "gate.bias": mesh_tf.one("local_conv_inp_1/bias"),
    "kernel": mesh_tf.stacked("lightwt_depthwise_dense_{}/kernel", WIDTH),
    "bias": mesh_tf.one("separable_conv1d/depthwise_conv_hack/depthwise_dense_0/bias"),
    "pointwise.kernel": mesh_tf.one("separable_conv1d/pointwise_dense/kernel"),
    "pointwise.bias": mesh_tf.one("separable_conv1d/pointwise_dense/bias"),
    "out.kernel": mesh_tf.one("local_conv_attn_op_projection/kernel"),
    "out.bias": mesh_tf.one("local_conv_attn_op_projection/bias"),
}


def main() -> None:
    """Writes the goldens."""
    segment_ids = (np.arange(9) < np.array([[9], [6]])).astype(np.int32)
    for side, first, last in (("encoder", -(WIDTH // 2), WIDTH // 2), ("decoder", 1 - WIDTH, 0)):
        block = transformer_layers.LocalConvAttnBlock(
            min_relative_pos=first, max_relative_pos=last, output_size=DIM, attention_type="lightweight_conv"
        )
        model = {"name": "lconv", "size": "nano", "form": "mesh", "widths": (WIDTH,), "embed_dim": DIM}
        layer = f"{side}.blocks.0.self_attention.layer"
        causal = side == "decoder"
        mesh_tf.golden(block.call, model, layer, segment_ids, DIM, NAMES, causal).save(f"lconv-mesh-{side}")


if __name__ == "__main__":
    main()

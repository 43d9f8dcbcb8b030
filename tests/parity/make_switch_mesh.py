"""Goldens of the Switch layer.

Mesh TensorFlow's MoE1D with experts of limited capacity, and its balance loss. Recipe: the
environment of `mesh_tf`, then, from the root of the checkout, `python -m
tests.parity.make_switch_mesh`. Groups are rows. With padding the balance loss is left out: Mesh
TensorFlow counts padding as tokens there.
"""

import numpy as np

from tests.parity import mesh_tf
from tests.parity.mesh_tf import moe

DIM, HIDDEN, EXPERTS, LENGTH, CAPACITY_FACTOR = 6, 10, 3, 24, 0.75
NAMES: mesh_tf.Names = {
    "router": mesh_tf.one("switch_gating/kernel"),
    "wi": mesh_tf.one("wi/kernel"),
    "wo": mesh_tf.one("wo/kernel"),
}


def main() -> None:
    """Writes the goldens."""
    for case, lengths, weight in (("full", (24, 24), 0.01), ("padded", (24, 15), 0.0)):
        segment_ids = (np.arange(LENGTH) < np.array(lengths)[:, None]).astype(np.int32)
        layer = moe.MoE1D(
            num_experts=EXPERTS,
            loss_coef=weight,
            hidden_size=HIDDEN,
            group_size=LENGTH,
            capacity_factor_eval=CAPACITY_FACTOR,
            moe_gating="switch",
        )
        model = {
            "name": "switch",
            "size": "nano",
            "embed_dim": DIM,
            "mlp_dim": HIDDEN,
            "num_experts": EXPERTS,
            "group_size": LENGTH,
            "eval_capacity_factor": CAPACITY_FACTOR,
            "balance_weight": weight,
        }
        path = "encoder.blocks.1.feed_forward.layer"
        golden = mesh_tf.golden(
            layer.call, model, path, segment_ids, DIM, NAMES, False, ("load_balance",)
        )
        dropped = 1 - (np.abs(golden.outputs["y"]).sum(-1) > 0).sum() / segment_ids.sum()
        assert 0.1 < dropped < 0.9, dropped
        golden.save(f"switch-mesh-{case}")


if __name__ == "__main__":
    main()

"""Golden of the Switch Transformer.

Hugging Face's sparse layer and its balance loss in the skeleton of T5. Recipe, in an environment of
its own (never the project's): `pip install -e '.[parity]'`, then, from the root of the checkout,
`python -m tests.parity.make_switch`.

Rows are full, since Hugging Face routes padding like tokens, and no expert is full:
`make_switch_mesh` has capacities. Groups are rows. The balance losses are summed over layers, where
Hugging Face takes one over all layers' tokens.
"""

import torch
from transformers import SwitchTransformersConfig
from transformers.models.switch_transformers import modeling_switch_transformers as switch

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

EXPERTS, LENGTH, BALANCE_WEIGHT = 4, 13, 0.01


def main() -> None:
    """Writes the golden."""
    dimensions = t5_torch.DIMENSIONS
    model = t5_torch.build(dimensions)
    config = SwitchTransformersConfig(
        d_model=dimensions["embed_dim"],
        d_ff=dimensions["mlp_dim"],
        num_experts=EXPERTS,
        expert_capacity=LENGTH,
        router_jitter_noise=0.0,
        dropout_rate=0.0,
    )
    routed = []
    for stack in (model.encoder, model.decoder):
        for block in stack.block[1::2]:
            sparse = switch.SwitchTransformersSparseMLP(config).eval()
            sparse.router.register_forward_hook(
                lambda module, args, output: routed.append(output[2])
            )
            block.layer[-1].DenseReluDense = sparse
    t5_torch.randomise(model)
    zoo = {
        "name": "switch",
        "size": "nano",
        "num_experts": EXPERTS,
        "group_size": LENGTH,
        **dimensions,
    }
    # Files of a whole Switch Transformer name the layers `mlp`.
    others = {
        name.replace("DenseReluDense", "mlp"): Weight(tensor)
        for name, tensor in model.named_parameters()
    }
    weights = t5_torch.mapped(model, zoo, others)
    t5_torch.check_complete(model, weights)
    batch = batches.padded(
        (LENGTH, LENGTH, LENGTH), (LENGTH, LENGTH, LENGTH), dimensions["vocab_size"]
    )
    scores = t5_torch.logits(model, batch)
    balance = torch.zeros(())
    for logits in routed:
        balance += switch.load_balancing_loss_func(
            torch.softmax(logits, -1), torch.argmax(logits, -1)
        )
    golden = t5_torch.golden(
        t5_torch.VERSIONS, zoo, batch, weights, scores, {"load_balance": BALANCE_WEIGHT * balance}
    )
    golden.save("switch-dropless")


if __name__ == "__main__":
    main()

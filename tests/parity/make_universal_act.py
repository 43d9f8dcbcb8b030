"""Goldens of adaptive computation time.

ACT_basic of Universal-Transformer-Pytorch around a block of Hugging Face's T5. Recipe, in an
environment of its own (never the project's): `pip install torch==2.13.0 transformers==5.23.0`, a
checkout of andreamad8/Universal-Transformer-Pytorch (commit
e6b06375269e805a23acbb07ef1aa4d6402bce52), then, from the root of this checkout, `python -m
tests.parity.make_universal_act CHECKOUT`.

Its form is `basic`. For `accumulated` the weights of the steps are worked out here from its halting
probabilities, and held against it: with them the form `basic` must come out as it has it. Every
token halts before the last step, since what happens there is the zoo's own choice.
`make_universal_t2t` runs the original of both forms and of the signal.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

STEPS, EPSILON, LOSS_WEIGHT = 9, 0.1, 0.01


class Adaptive(nn.Module):
    """One block, applied until every position has halted.

    It stands for all blocks of T5's stack.
    """

    def __init__(self, shared: nn.Module, act: nn.Module, dim: int, form: str):
        """Keeps the block under the name `shared`, by which `t5_torch.parameters` knows it."""
        super().__init__()
        self.shared, self.act, self.form = shared, act, form
        self.signal = nn.Parameter(torch.zeros(STEPS, dim))
        self.probabilities, self.states = [], []
        act.sigma.register_forward_hook(lambda module, args, p: self.probabilities.append(p))

    def forward(self, x, *args, **kwargs):
        """The signature of T5Block: state, bias of self-attention, bias of cross-attention."""

        def step(state):
            self.states.append(self.shared(state, *args, **kwargs)[0])
            return self.states[-1]

        no_time_signal = torch.zeros(1, *x.shape[1:])
        basic, (self.remainders, self.steps) = self.act(
            x, x, step, no_time_signal, self.signal[None], STEPS
        )
        accumulated = self.combine(x, basic)
        return basic if self.form == "basic" else accumulated, None, None

    def combine(self, x, basic):
        """The mean of the states, weighted by the probability of halting at each step."""
        halted, accumulated, check = (
            torch.zeros(*x.shape[:2], 1),
            torch.zeros_like(x),
            torch.zeros_like(x),
        )
        for p, state in zip(self.probabilities, self.states, strict=True):
            weight = torch.where(halted + p > 1 - EPSILON, 1 - halted, p) * (halted < 1)
            halted = halted + weight
            accumulated = accumulated + weight * state
            check = check * (1 - weight) + weight * state
        assert torch.allclose(check, basic, atol=1e-5)
        return accumulated

    def ponder(self, real):
        """The mean number of steps and remainder of real tokens."""
        assert 2 <= self.steps[real].min() < self.steps[real].max() < STEPS, self.steps
        return (self.steps + self.remainders)[real].mean()


def main(checkout: Path) -> None:
    """Writes the goldens."""
    sys.path.insert(0, str(checkout))
    torch.Tensor.cuda = lambda tensor: tensor  # the code asks for a GPU
    from models.UTransformer import ACT_basic

    dimensions = t5_torch.DIMENSIONS
    batch = batches.padded((9, 25), (17, 8), dimensions["vocab_size"])
    for form in ("basic", "accumulated"):
        model = t5_torch.build(dimensions)
        for stack in (model.encoder, model.decoder):
            act = ACT_basic(dimensions["embed_dim"])
            stack.block = nn.ModuleList(
                [Adaptive(stack.block[0], act, dimensions["embed_dim"], form)]
            )
        t5_torch.randomise(model)
        weights = t5_torch.parameters(model)
        ponder = torch.zeros(())
        for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
            adaptive = stack.block[0]
            adaptive.act.p.weight.data *= (
                0.01  # so that positions take few steps or many, and none all
            )
            adaptive.act.p.bias.data.fill_(-0.3)
            weights |= t5_torch.linear(adaptive.act.p, f"{side}.halt")
            weights[f"{side}.step_signal"] = Weight(adaptive.signal)
        t5_torch.check_complete(model, weights)
        scores = t5_torch.logits(model, batch)
        for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
            ponder = ponder + stack.block[0].ponder(torch.tensor(batches.segments(batch, side) > 0))
        config = {
            "name": "universal",
            "size": "nano",
            "act": form,
            "num_steps": STEPS,
            "act_epsilon": EPSILON,
            "act_loss_weight": LOSS_WEIGHT,
            **dimensions,
        }
        oracle = f"Universal-Transformer-Pytorch e6b0637, {t5_torch.VERSIONS}"
        golden = t5_torch.golden(
            oracle, config, batch, weights, scores, {"ponder": LOSS_WEIGHT * ponder}
        )
        golden.save(f"universal-act-{form}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""How training settings carry over from a base size to wider and deeper models.

`standard` takes a model's initial weights as its architecture has them, and one learning rate for
all parameters. `mup` (Yang et al., 2022, arXiv 2203.03466) keeps the size of every activation and
of its change in a step the same at all widths. `completep` (Dey et al., 2025, arXiv 2505.01618)
also keeps what all layers together add to the residual stream the same at all depths. At the base
size all three are the same.

With m the width over that of the base, and L the number of layers over that of the base:

| | mup | completep |
|---|---|---|
| logits of the head | times 1/m | 1/m |
| logits of attention, K wide | 1/K in place of K^-1/2 | 1/K |
| what a layer adds | unchanged | times 1/L |
| epsilon of Adam | times 1/m | 1/(m L) |
| learning rate | by parameter, see `Ratio` | as in mup |
| decay of weights in a step | unchanged | unchanged |

The architectures already draw their matrices with the variance 1 / fan-in that mup asks for. Only
the queries (T5 divides their variance by K as well), a head's own table and the weights of a
mixture's head differ, and keep what they have at the base.
"""

import dataclasses
from collections.abc import Mapping

from flax import nnx

from arch_zoo.accounting import abstract_model
from arch_zoo.config import ModelConfig
from arch_zoo.roles import role


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A parameter of a model beside the same parameter of its base.

    The properties are the factors of its learning rate by the size of an optimizer's steps. They
    make a step change the layer's output as much as at the base.

    Attributes:
      stddev: the ratio of the standard deviations with which they are drawn.
      fan_in: the ratio of the numbers of products in their sums. Tables, scales and the head's
        logits, which are divided by the width, do not sum over the width.
    """

    stddev: float = 1.0
    fan_in: float = 1.0

    @property
    def of_entries(self) -> float:
        """For steps whose entries have a fixed size (Adam, Lion); 1/m for most matrices.

        Entries of a step agree with the activations they are multiplied by, so their products add
        up to fan-in times one of them, and those of initial weights to its square root.
        """
        return self.stddev * self.fan_in**-0.5

    @property
    def of_relative(self) -> float:
        """For steps whose entries are as large as those of the parameter (Adafactor); 1/sqrt(m)."""
        return self.fan_in**-0.5

    @property
    def of_orthogonal(self) -> float:
        """For steps that are orthogonal matrices with entries of a fixed size (Muon); 1/sqrt(m)."""
        return self.stddev


@dataclasses.dataclass(frozen=True)
class Growth:
    """What an optimizer must know of a model beside its base.

    Attributes:
      ratios: of each parameter by its name, such as `encoder.blocks.0.self_attention.layer.query`.
        A parameter that is not in it has a ratio of 1.
      epsilon: the factor of Adam's epsilon.
    """

    ratios: Mapping[str, Ratio] = dataclasses.field(default_factory=dict)
    epsilon: float = 1.0

    def ratio(self, name: str) -> Ratio:
        """That of one parameter."""
        return self.ratios.get(name, Ratio())


STANDARD = Growth()
"""A model that is its own base."""


def growth(cfg: ModelConfig) -> Growth:
    """How a model differs from its base; nothing with the standard parametrisation."""
    if cfg.parametrization == "standard":
        return STANDARD
    own, base = _drawn(cfg), _drawn(cfg.base)
    ratios = {
        name: Ratio(stddev / base[name][0], fan_in / base[name][1])
        for name, (stddev, fan_in) in own.items()
    }
    return Growth(ratios, 1 / (cfg.width_ratio * cfg.depth_ratio))


def _drawn(cfg: ModelConfig) -> dict[str, tuple[float, float]]:
    """The standard deviation and the fan-in of each parameter."""
    found = {}
    for path, param in nnx.to_flat_state(nnx.state(abstract_model(cfg), nnx.Param)):
        known = param.get_metadata()
        summed = role(param.axes) not in ("embedding", "head", "vector", "balance")
        fan_in = known["fan_in"] if summed else 1
        found[".".join(map(str, path))] = (known.get("stddev", 1.0), fan_in)
    return found

"""The role of every parameter of the zoo."""

import pytest

import arch_zoo
from arch_zoo.roles import ROLES, role
from train.run.step import make_model

FAST = ("transformer", "mos", "moe", "evolved", "gated_deltanet")


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in arch_zoo.names()],
)
def test_every_parameter_has_the_role_of_what_it_does(name):
    cfg = arch_zoo.config(name, "nano", vocab_size=64)
    model, params = make_model(cfg, 0)
    roles = {path: role(axes) for path, axes in model.axes.items()}
    assert set(roles.values()) <= set(ROLES)
    for path, found in roles.items():
        if params[path].ndim < 2:
            assert found == "vector", path
        elif path.endswith(".table"):
            assert found in ("embedding", "head"), path
        elif ".experts" in path or params[path].ndim == 3 and "expert" in model.axes[path]:
            assert found == "expert", path
    counts = {one: sum(found == one for found in roles.values()) for one in ROLES}
    assert counts["embedding"] >= 1 and counts["matrix"] >= 1
    convolutional = ("dconv", "lconv", "evolved", "gated_deltanet", "mamba2", "hybrid")
    assert (counts["convolution"] > 0) == (name in convolutional)
    assert (counts["expert"] > 0) == (name in ("switch", "moe"))
    assert (counts["gate"] > 0) == (name in ("switch", "moe", "mos"))
    assert (counts["head"] > 0) == (not getattr(arch_zoo.get(name)(), "tied", True))
    assert counts["balance"] == 0


def test_the_bias_of_a_choice_has_a_role_of_its_own():
    cfg = arch_zoo.config("moe", "nano", vocab_size=64, balance_bias=True)
    model, _ = make_model(cfg, 0)
    found = [path for path, axes in model.axes.items() if role(axes) == "balance"]
    layers = cfg.num_encoder_layers + cfg.num_decoder_layers
    assert len(found) == layers and all(path.endswith("feed_forward.layer.bias") for path in found)

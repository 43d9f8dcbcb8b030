"""Models of one size: with the dimensions of their papers, or with equal numbers of parameters."""

import pytest

import arch_zoo

SIZES = [
    "nano",
    "micro",
    "centi",
    "tiny-EL2",
    *(pytest.param(s, marks=pytest.mark.slow) for s in ("small", "base")),
]


def non_embedding(cfg: arch_zoo.ModelConfig) -> int:
    return arch_zoo.count_params(cfg).non_embedding


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", arch_zoo.names())
def test_matched_models_have_the_vanilla_models_parameters(name, size):
    """Within 1 %, or within half a unit of width if one unit is more than that."""
    target = non_embedding(arch_zoo.config("transformer", size))
    paper, cfg = arch_zoo.config(name, size), arch_zoo.config(name, size, size_rule="matched")
    wider = arch_zoo.config(name, size, mlp_dim=cfg.mlp_dim + 1)
    found = non_embedding(cfg)
    assert abs(found - target) <= max(0.01 * target, (non_embedding(wider) - found) / 2)
    changed = {key for key, value in cfg.to_dict().items() if value != paper.to_dict()[key]}
    assert changed <= {"mlp_dim"}
    assert arch_zoo.config_from_dict(cfg.to_dict()) == cfg


def test_the_vanilla_model_is_its_own_match():
    for size in ("nano", "tiny", "tiny-SKV"):
        assert arch_zoo.config("transformer", size, size_rule="matched") == arch_zoo.config(
            "transformer", size
        )


def test_matching_takes_other_settings_into_account():
    """The feed-forward layers shrink by what the options and overrides of a model add."""
    few, many = (
        arch_zoo.config("mos", "nano", size_rule="matched", num_components=k) for k in (2, 8)
    )
    assert few.mlp_dim > many.mlp_dim
    assert non_embedding(few) == pytest.approx(non_embedding(many), rel=0.01)
    scanned = arch_zoo.config(
        "evolved", "micro-NL4", size_rule="matched", scan_layers=True, vocab_size=64
    )
    plain = arch_zoo.config("evolved", "micro-NL4", size_rule="matched")
    assert scanned.scan_layers and scanned.vocab_size == 64 and scanned.mlp_dim == plain.mlp_dim


def test_a_model_that_is_too_large_without_feed_forward_layers_is_refused():
    """The mesh form of dconv predicts D weights per tap from D inputs."""
    with pytest.raises(
        arch_zoo.ConfigError, match="dconv: size_rule='matched'.* parameters, the vanilla model"
    ):
        arch_zoo.config("dconv", "tiny", form="mesh", widths=(31,), size_rule="matched")

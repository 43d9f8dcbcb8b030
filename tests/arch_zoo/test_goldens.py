"""Every architecture against a golden file that describes it.

A change of a default, a shape or a count is therefore always noticed. `pytest
tests/arch_zoo/test_goldens.py --rewrite-goldens` writes the files again; read the difference before
you commit it.
"""

import json
from pathlib import Path

import pytest
from flax import nnx

import arch_zoo
from arch_zoo.accounting import abstract_model

GOLDENS = Path(__file__).parent / "goldens"
SIZES = (
    *("nano", "micro", "milli", "centi", "tiny", "mini"),
    *("small", "base", "large", "xl", "xxl"),
)
TRACED = ("nano", "tiny", "base")

MODELS = [(name, family) for name in arch_zoo.names() for family in arch_zoo.get(name).families]


def path_of(name: str, family: str) -> Path:
    return GOLDENS / (f"{name}.json" if family == "encoder_decoder" else f"{name}-{family}.json")


def description(name: str, family: str) -> dict:
    """The resolved configuration and parameter tree at `tiny`, and counts at every size.

    FLOPs are traced, which takes seconds for deep models: they are counted at three sizes.
    """
    cfg = arch_zoo.config(name, "tiny", family=family)
    tree = nnx.to_flat_state(nnx.state(abstract_model(cfg), nnx.Param))
    counts = {}
    for size in SIZES:
        sized = arch_zoo.config(name, size, family=family)
        params = arch_zoo.count_params(sized)
        counts[size] = {
            "total": params.total,
            "embedding": params.embedding,
            "active": params.active,
        }
        if size in TRACED:
            counts[size]["flops_forward"] = arch_zoo.count_flops(sized).forward
    return {
        "config": cfg.to_dict(),
        "parameters": {
            ".".join(map(str, path)): [*param.shape, *param.axes] for path, param in tree
        },
        "counts": counts,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), MODELS)
def test_an_architecture_is_what_it_was(name, family, request):
    path = path_of(name, family)
    found = json.loads(json.dumps(description(name, family)))
    if request.config.getoption("--rewrite-goldens"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert path.exists(), f"{path.name} is missing: write it with --rewrite-goldens"
    assert found == json.loads(path.read_text())


def test_no_golden_is_left_over():
    assert set(GOLDENS.glob("*.json")) == {path_of(*model) for model in MODELS}

"""Every architecture computes what another project's code computes.

Compared are the outputs and the gradient of every parameter.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arch_zoo
from arch_zoo.layers.context import Aux, Context
from configs.studies import paper
from tests import tolerances
from tests.parity import golden

GOLDENS = sorted(golden.FOLDER.glob("*.npz"))
# The time of these tests is almost only compilation.
CASES = [
    pytest.param(
        path, id=path.stem, marks=() if path.stem == "transformer-packed" else pytest.mark.slow
    )
    for path in GOLDENS
]


class Output(nnx.Module):
    """The last layer, which needs the embedding."""

    def __init__(self, model):
        self.embedding, self.head = model.embedding, model.head

    def __call__(self, x, ctx):
        return self.head.logits(x, self.embedding), None, Aux()


def layer_of(model, path):
    if path == "head":
        return Output(model)
    for name in path.split("."):
        model = model[int(name)] if name.isdigit() else getattr(model, name)
    return model


def build(case: golden.Golden):
    """The zoo's model, or the layer that the golden is of, as separate parts.

    `merge(values)` puts given weights into it.
    """
    module = nnx.eval_shape(
        lambda: arch_zoo.build(arch_zoo.config(**case.model), jax.random.key(0))
    )
    if case.layer is not None:
        module = layer_of(module, case.layer)
    graphdef, params, constants = nnx.split(module, nnx.Param, ...)
    variables, fixed = by_name(params), by_name(constants)
    # Strict: every parameter is set, and no weight is left over.
    assert shapes(variables) == shapes(case.weights)
    assert shapes(fixed) == shapes(case.constants)

    def filled(variables, values):
        flat = [
            (tuple(name), variable.replace(values[".".join(map(str, name))]))
            for name, variable in variables
        ]
        return nnx.from_flat_state(flat)

    def merge(values):
        return nnx.merge(
            graphdef,
            filled(nnx.to_flat_state(params), values),
            filled(nnx.to_flat_state(constants), case.constants),
        )

    return merge


def by_name(state):
    return {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def shapes(arrays):
    return {name: array.shape for name, array in arrays.items()}


def run_model(merge, values, inputs):
    """The mean loss of the weighted targets, and the outputs that goldens of models hold."""
    batch = {name: jnp.asarray(array) for name, array in inputs.items()}
    weights = batch["decoder_loss_weights"]
    model = merge(values)
    out = model.token_nll(batch)
    loss = (out.nll * weights).sum() / weights.sum()
    extra = sum(out.aux.values(), jnp.zeros(()))
    logits = model(batch).logits
    return loss + extra, {"logits": logits, "loss": loss, **out.aux}


def run_layer(merge, values, inputs):
    """sum(output * cotangent) plus the auxiliary losses, and the layer's outputs."""
    segment_ids, positions = jnp.asarray(inputs["segment_ids"]), jnp.asarray(inputs["positions"])
    ctx = Context(segment_ids, positions, causal=bool(inputs["causal"]))
    y, *_, aux = merge(values)(values["x"], ctx)  # a stack returns its context too
    return (y * inputs["cotangent"]).sum() + sum(aux.losses.values(), jnp.zeros(())), {
        "y": y,
        **aux.losses,
    }


def assert_close(actual, expected, tolerance, what):
    assert actual.shape == expected.shape, what
    error = np.abs(np.asarray(actual, np.float64) - expected).max()
    largest = np.abs(expected).max()
    assert error <= tolerance * largest, (
        f"{what}: off by {error:.2e}, the largest entry is {largest:.2e}"
    )


@pytest.mark.parametrize("path", CASES)
def test_outputs_and_gradients_equal_the_oracle(path):
    case = golden.load(path)
    merge = build(case)
    values = {name: jnp.asarray(weight) for name, weight in case.weights.items()}
    run = run_model
    if case.layer is not None:
        run = run_layer
        values["x"] = jnp.asarray(case.inputs["x"])
    with jax.default_matmul_precision("highest"):
        gradient = jax.grad(lambda values: run(merge, values, case.inputs), has_aux=True)
        gradients, outputs = jax.jit(
            gradient, compiler_options={"xla_backend_optimization_level": 0}
        )(values)
    # Outputs at padding mean nothing and differ between implementations.
    real = (
        case.inputs["decoder_loss_weights" if case.layer is None else "segment_ids"][..., None] > 0
    )
    for name, expected in case.outputs.items():
        mask = real if expected.ndim else True
        assert_close(outputs[name] * mask, expected * mask, tolerances.PARITY, name)
    assert gradients.keys() == case.gradients.keys()
    scale = max(np.abs(expected).max() for expected in case.gradients.values())
    for name, expected in case.gradients.items():
        if name.endswith("key_bias"):  # adds one number to all logits of a query: only rounding
            for gradient in (gradients[name], expected):
                assert np.abs(gradient).max() < tolerances.NOTHING * scale, name
            continue
        assert_close(gradients[name], expected, tolerances.PARITY_GRADIENT, f"gradient of {name}")


@pytest.mark.parametrize("name", arch_zoo.names())
def test_an_architecture_says_whether_somebody_elses_code_confirms_it(name):
    """A class without goldens says `parity = False`.

    As soon as it has goldens, it must no longer say so.
    """
    assert arch_zoo.get(name).parity == (
        name in {golden.load(path).model["name"] for path in GOLDENS}
    )


def test_the_twelve_of_the_paper_are_confirmed():
    assert [name for name in paper.ARCHITECTURES if not arch_zoo.get(name).parity] == []

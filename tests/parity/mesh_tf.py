"""Single layers of Mesh TensorFlow, the code base of the original study, with their gradients.

Environment, of its own and never the project's: `pip install tensorflow-cpu==2.15.1 "numpy<2"
mesh-tensorflow==0.1.21 gin-config mock scipy`. This module holds what else it takes to import it.
"""

import sys
import types
from collections.abc import Callable
from unittest import mock

import numpy as np
from tensorflow.python.framework import ops, tensor_conversion_registry

ops.register_tensor_conversion_function = (
    tensor_conversion_registry.register_tensor_conversion_function
)
sys.modules["tensorflow_datasets"] = mock.MagicMock()  # never used here, and its protobuf clashes

import mesh_tensorflow as mtf  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402
from mesh_tensorflow.transformer import (  # noqa: E402
    evolved_transformer,
    funnel_transformer,
    moe,
    transformer,
    transformer_layers,
    universal_transformer,
    vocab_embeddings,
)

from tests.parity.golden import Golden  # noqa: E402

# The scripts take them from here, since they cannot be imported before the lines above have run.
__all__ = [
    "evolved_transformer",
    "funnel_transformer",
    "moe",
    "mtf",
    "tf",
    "transformer",
    "transformer_layers",
    "universal_transformer",
    "vocab_embeddings",
]

VERSIONS = "mesh-tensorflow 0.1.21, tensorflow 2.15.1"

# Mesh TensorFlow's names for its variables, and the array in the zoo's layout: {path: (names,
# layout of their arrays)}.
Names = dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]]


def one(
    name: str, layout: Callable[..., np.ndarray] = np.asarray
) -> tuple[tuple[str, ...], Callable]:
    """A parameter that is one variable there."""
    return (name,), layout


def stacked(template: str, count: int) -> tuple[tuple[str, ...], Callable]:
    """A parameter that is a variable for each index of its first axis there."""
    return tuple(template.format(index) for index in range(count)), lambda *arrays: np.stack(arrays)


def context(mesh: mtf.Mesh, x: mtf.Tensor, segment_ids: np.ndarray) -> transformer.Context:
    """What a layer needs to know besides its input: sequence ids and positions.

    `inputs` are ids that are zero at padding, as in training.
    """
    tf.disable_v2_behavior()
    *batch_dims, length_dim, model_dim = x.shape.dims
    ids = mtf.import_tf_tensor(
        mesh, tf.constant(segment_ids, tf.int32), mtf.Shape([*batch_dims, length_dim])
    )
    return transformer.Context(
        model=types.SimpleNamespace(
            model_dim=model_dim, ensemble_dims=[], ensemble_dim=None, layout="", mesh_shape=""
        ),
        mesh=mesh,
        batch_dims=batch_dims,
        length_dim=length_dim,
        variable_dtype=mtf.VariableDType(tf.float32),
        mode=tf.estimator.ModeKeys.EVAL,
        sequence_id=ids,
        position=mtf.range(mesh, length_dim, tf.int32),
        position_is_default=True,
        inputs=ids,
        losses=[],
    )


def solve(build, names: Names, seed: int = 0):
    """Draws weights, runs a graph and differentiates it.

    Args:
      build: `build(mesh) -> (outputs, loss, inputs)`: tensors by name, a scalar, and tensors by
        name whose gradients are wanted besides those of all variables.
      names: where the zoo's parameters are.
      seed: of the weights.

    Returns:
      Weights, outputs and gradients: arrays by name, those of parameters in the zoo's layout.
    """
    rng = np.random.default_rng(seed)
    with tf.Graph().as_default(), tf.Session() as session:
        graph = mtf.Graph()
        mesh = mtf.Mesh(graph, "mesh")
        outputs, loss, inputs = build(mesh)
        variables = [operation.outputs[0] for operation in graph.trainable_variables]
        gradients = mtf.gradients([loss], [*inputs.values(), *variables])
        implementation = mtf.placement_mesh_impl.PlacementMeshImpl(
            shape=[], layout={}, devices=[""]
        )
        lowering = mtf.Lowering(graph, {mesh: implementation})
        wanted = [
            lowering.export_to_tf_tensor(tensor) for tensor in (*outputs.values(), *gradients)
        ]
        session.run(tf.global_variables_initializer())
        values = {}
        for operation, variable in zip(
            graph.trainable_variables, tf.trainable_variables(), strict=True
        ):
            values[operation.name] = draw(rng, operation.name, tuple(variable.shape.as_list()))
            session.run(variable.assign(values[operation.name]))
        session.run(lowering.copy_masters_to_slices())
        found = dict(zip((*outputs, *inputs, *values), session.run(wanted), strict=True))
    used = {name for parts, _ in names.values() for name in parts}
    assert used == set(values), (sorted(set(values) - used), sorted(used - set(values)))

    def in_zoo(arrays):
        return {
            path: layout(*(arrays[part] for part in parts))
            for path, (parts, layout) in names.items()
        }

    gradients = in_zoo(found) | {name: found[name] for name in inputs}
    return in_zoo(values), {name: found[name] for name in outputs}, gradients


def draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random values that make every parameter matter.

    Matrices are scaled by their fan-in; tables and biases are far from zero.
    """
    if "embedding" in name or "relative_attention_bias" in name:
        return rng.standard_normal(shape)
    if len(shape) == 1:
        return 0.3 * rng.standard_normal(shape) + name.endswith("scale")
    return rng.standard_normal(shape) * shape[-2] ** -0.5


def golden(
    call,
    model: dict,
    layer: str,
    segment_ids: np.ndarray,
    dim: int,
    names: Names,
    causal: bool,
    losses: tuple[str, ...] = (),
) -> Golden:
    """Runs `call(context, x) -> y` with random weights and takes outputs and gradients.

    Args:
      call: runs the layer on a context and an input.
      model: the zoo's configuration.
      layer: the path of the same layer in the zoo.
      segment_ids: [B, L], 0 at padding.
      dim: channels of the input.
      names: where the zoo's parameters are.
      causal: whether the layer is one of a decoder.
      losses: the zoo's names of the auxiliary losses that the layer appends to the context's.
    """
    rng = np.random.default_rng(1)
    real_BL1 = (segment_ids > 0)[..., None]
    # The skeleton's residual layer gives zeros at padding; a padded output means nothing.
    x_BLD = (rng.standard_normal((*segment_ids.shape, dim)) * real_BL1).astype(np.float32)
    given = {}

    def build(mesh):
        dims = list(map(mtf.Dimension, ("batch", "length", "d_model"), x_BLD.shape))
        x = mtf.import_tf_tensor(mesh, tf.constant(x_BLD), mtf.Shape(dims))
        ctx = context(mesh, x, segment_ids)
        y = call(ctx, x)
        given["cotangent"] = (rng.standard_normal(y.shape.to_integer_list) * real_BL1).astype(
            np.float32
        )
        cotangent = mtf.import_tf_tensor(mesh, tf.constant(given["cotangent"]), y.shape)
        loss = mtf.add_n([mtf.reduce_sum(y * cotangent), *ctx.losses])
        return {"y": y, **dict(zip(losses, ctx.losses, strict=True))}, loss, {"x": x}

    weights, outputs, gradients = solve(build, names)
    positions = np.broadcast_to(np.arange(segment_ids.shape[1]), segment_ids.shape)
    inputs = {
        "x": x_BLD,
        "segment_ids": segment_ids,
        "positions": positions,
        "causal": np.array(causal),
    } | given
    outputs["y"] *= real_BL1
    gradients["x"] *= real_BL1
    return Golden(VERSIONS, model, inputs, weights, outputs, gradients, layer)

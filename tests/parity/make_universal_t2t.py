"""Goldens of the Universal Transformer's arithmetic.

Tensor2Tensor's recurrence, with and without halting. Recipe: the environment of `mesh_tf` and `pip
install --no-deps tensor2tensor==1.15.7`, then, from the root of the checkout, `python -m
tests.parity.make_universal_t2t`.

`universal_transformer_layer` runs as published: the step signal, who halts when and with which
weight, what is left for the last step, and the loop itself. It is given a block in the form of
T5.1.0, written here: a norm, attention with relative biases, a norm, and a feed-forward layer. A
row is nine tokens without padding, and every token halts before the last step, since what happens
there is the zoo's own choice.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np

from tests.parity.golden import Golden
from tests.parity.mesh_tf import tf

DIM, HIDDEN, HEADS, HEAD_DIM, LENGTH, STEPS, ACT_STEPS = 8, 20, 3, 5, 9, 3, 9
EPSILON, LOSS_WEIGHT = 0.1, 0.01
VERSIONS = "tensor2tensor 1.15.7, tensorflow 2.15.1"

# What Tensor2Tensor imports for other models; never used here.
UNUSED = (
    "tensorflow_addons",
    "tf_slim",
    "tensorflow_probability",
    "tensor2tensor.layers.area_attention",
    "tensor2tensor.layers.vq_discrete",
    "tensor2tensor.models.transformer",
)


def recurrence():
    """Tensor2Tensor's `universal_transformer_layer`."""
    folder = Path(str(importlib.util.find_spec("tensor2tensor").submodule_search_locations[0]))  # type: ignore
    for name in (
        "tensor2tensor.models",
        "tensor2tensor.models.research",
    ):  # whose own files import every model
        package = types.ModuleType(name)
        package.__path__ = [str(folder.parent / name.replace(".", "/"))]
        sys.modules[name] = package
    for name in UNUSED:
        sys.modules[name] = mock.MagicMock()
    util = importlib.import_module("tensor2tensor.models.research.universal_transformer_util")
    util.contrib.summary = mock.MagicMock()  # a diagnostic that TensorFlow 2 no longer writes
    return util.universal_transformer_layer


def settings(act: str) -> mock.Mock:
    """Its settings: a learned signal for each step and no signal of positions."""
    return mock.Mock(
        recurrence_type="basic" if act == "none" else "act",
        act_type=act,
        act_epsilon=EPSILON,
        act_max_steps=ACT_STEPS,
        act_halting_bias_init=1.0,
        num_rec_steps=STEPS,
        num_inrecurrence_layers=1,
        mix_with_transformer=None,
        add_position_timing_signal=False,
        add_step_timing_signal=True,
        step_timing_signal_type="learned",
        add_or_concat_timing_signal="add",
        add_sru=False,
    )


def norm(x, scale):
    """T5's."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * scale


def block(values: dict):
    """The two halves of a block whose parameters are `values`, by the zoo's names."""
    attention, feed_forward = "blocks.0.self_attention", "blocks.0.feed_forward"
    distances = np.arange(LENGTH)[None] - np.arange(LENGTH)[:, None]
    # As long as distances are below nine, each has a bucket of its own; those of later keys come
    # second.
    buckets = np.minimum(np.abs(distances), 8) + 16 * (distances > 0)
    assert LENGTH <= 9

    def heads(x, name):
        projected = tf.tensordot(x, values[f"{attention}.layer.{name}"], 1)
        return tf.reshape(projected, [-1, LENGTH, HEADS, HEAD_DIM])

    def attend(x):
        y = norm(x, values[f"{attention}.norm.scale"])
        logits = tf.einsum("bthk,bshk->bhts", heads(y, "query"), heads(y, "key"))
        bias = tf.transpose(tf.gather(values["positions.table"], buckets), [2, 0, 1])
        mixed = tf.einsum("bhts,bshk->bthk", tf.nn.softmax(logits + bias), heads(y, "value"))
        out = values[f"{attention}.layer.out"]
        return x + tf.tensordot(tf.reshape(mixed, [-1, LENGTH, HEADS * HEAD_DIM]), out, 1)

    def feed(x):
        y = norm(x, values[f"{feed_forward}.norm.scale"])
        hidden = tf.nn.relu(tf.tensordot(y, values[f"{feed_forward}.layer.wi"], 1))
        return x + tf.tensordot(hidden, values[f"{feed_forward}.layer.wo"], 1)

    return feed, attend


def draw(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The block's parameters, the table of biases and the last norm."""
    joined = HEADS * HEAD_DIM
    shapes = {
        f"blocks.0.self_attention.layer.{name}": (DIM, joined) for name in ("query", "key", "value")
    }
    shapes |= {
        "blocks.0.self_attention.layer.out": (joined, DIM),
        "blocks.0.self_attention.norm.scale": (DIM,),
        "blocks.0.feed_forward.layer.wi": (DIM, HIDDEN),
        "blocks.0.feed_forward.layer.wo": (HIDDEN, DIM),
        "blocks.0.feed_forward.norm.scale": (DIM,),
        "positions.table": (32, HEADS),
        "norm.scale": (DIM,),
    }
    values = {}
    for name, shape in shapes.items():
        spread = 0.3 if len(shape) == 1 else 1.0 if "table" in name else shape[0] ** -0.5
        values[name] = (spread * rng.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)
    return values


def golden(layer, act: str) -> Golden:
    """Runs the recurrence in a stack and differentiates it."""
    rng = np.random.default_rng(0)
    arrays = draw(rng)
    x_BLD, cotangent = (rng.standard_normal((2, LENGTH, DIM)).astype(np.float32) for _ in range(2))
    with tf.Graph().as_default(), tf.Session() as session:
        values = {name: tf.constant(array) for name, array in arrays.items()}
        x = tf.constant(x_BLD)
        y, extra = layer(x, settings(act), *block(values))
        y = norm(y, values["norm.scale"])
        loss = tf.reduce_sum(y * cotangent)
        outputs = {"y": y}
        if act != "none":
            steps, remainders = extra
            outputs["ponder"] = LOSS_WEIGHT * tf.reduce_mean(steps + remainders)
            loss += outputs["ponder"]
        own = {
            variable.op.name.rsplit("/", 1)[-1]: variable for variable in tf.trainable_variables()
        }
        gradients = tf.gradients(loss, [*values.values(), *own.values(), x])
        gradients = [
            tf.convert_to_tensor(gradient) for gradient in gradients
        ]  # that of a lookup is sparse
        session.run(tf.global_variables_initializer())
        for name, variable in own.items():
            drawn = rng.standard_normal(variable.shape.as_list()).astype(np.float32)
            # The signal is stored over sqrt(D); halting so that tokens take few steps or many, and
            # none all.
            starts = {
                "layer_embedding": drawn * DIM**-0.5,
                "kernel": 0.3 * drawn,
                "bias": 0 * drawn - 0.9,
            }
            session.run(variable.assign(starts[name]))
        learned = dict(zip(own, session.run(list(own.values())), strict=True))
        found, slopes = session.run(
            [outputs, dict(zip((*arrays, *own, "x"), gradients, strict=True))]
        )
        if act != "none":
            taken = session.run(steps)
            assert 2 <= taken.min() < taken.max() < ACT_STEPS, taken
    weights, slopes = (
        _in_zoo(parts, signal)
        for parts, signal in ((arrays | learned, DIM**0.5), (slopes, DIM**-0.5))
    )
    inputs = {
        "x": x_BLD,
        "cotangent": cotangent,
        "segment_ids": np.ones((2, LENGTH), np.int32),
        "positions": np.broadcast_to(np.arange(LENGTH), (2, LENGTH)),
        "causal": np.array(False),
    }
    dimensions = {"embed_dim": DIM, "mlp_dim": HIDDEN, "num_heads": HEADS, "head_dim": HEAD_DIM}
    options = {
        "act": act,
        "num_steps": STEPS if act == "none" else ACT_STEPS,
        "act_epsilon": EPSILON,
    }
    model = {
        "name": "universal",
        "size": "nano",
        "act_loss_weight": LOSS_WEIGHT,
        **options,
        **dimensions,
    }
    return Golden(VERSIONS, model, inputs, weights, found, slopes, "encoder")


def _in_zoo(arrays: dict[str, np.ndarray], signal: float) -> dict[str, np.ndarray]:
    """Tensor2Tensor's own parameters under the zoo's names.

    Its signal is multiplied by sqrt(D) where it is used.
    """
    names = {"kernel": "halt.kernel", "bias": "halt.bias"}
    found = {
        names.get(name, name): array for name, array in arrays.items() if name != "layer_embedding"
    }
    return found | {"step_signal": signal * arrays["layer_embedding"][:, 0, 0]}


def main() -> None:
    """Writes the goldens."""
    tf.disable_v2_behavior()
    layer = recurrence()
    for act in ("none", "accumulated", "basic"):
        golden(layer, act).save(f"universal-t2t-{act}")


if __name__ == "__main__":
    main()

"""Parameters: float32 arrays that carry the logical names of their axes and the distribution they start from.

A model names what an axis means ("embed", "mlp", "expert"); the trainer's one table says where such
an axis lives on a device mesh and which axes Adafactor factors.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


def normal(
    key: jax.Array, shape: tuple[int, ...], axes: tuple[str, ...], stddev: float
) -> nnx.Param:
    """A parameter drawn from N(0, stddev^2)."""
    return nnx.Param(stddev * jax.random.normal(key, shape, jnp.float32), axes=axes)


def fan_in(
    key: jax.Array, shape: tuple[int, ...], axes: tuple[str, ...], batch_axis: tuple[int, ...] = ()
) -> nnx.Param:
    """A truncated normal parameter of variance 1 / fan-in, the fan-in being the second-last axis."""
    initializer = jax.nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", batch_axis=batch_axis
    )
    return nnx.Param(initializer(key, shape, jnp.float32), axes=axes)


def glorot_uniform(key: jax.Array, shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """A uniform parameter of variance 2 / (fan-in + fan-out)."""
    return nnx.Param(jax.nn.initializers.glorot_uniform()(key, shape, jnp.float32), axes=axes)


def constant(value: float, shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """A parameter that starts at `value` everywhere: scales at one, biases at zero."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes)


def project(
    x: jax.Array, kernel: nnx.Param | jax.Array, dtype: DTypeLike | None = None
) -> jax.Array:
    """`x @ kernel`, [..., I] to [..., J], computed and returned in the type of `x`, or returned in `dtype` (`product`).

    The rows are joined first: the kernel's gradient then sums over one axis. Over two, XLA's CPU
    compiler transposes the whole of one operand before.
    """
    rows, matrix = x.reshape(-1, x.shape[-1]), kernel.astype(x.dtype)
    projected = rows @ matrix if dtype is None else product("NI,IJ->NJ", rows, matrix, dtype)
    return projected.reshape(*x.shape[:-1], -1)


def product(
    subscripts: str, a: jax.Array, b: jax.Array, dtype: DTypeLike = jnp.float32
) -> jax.Array:
    """The `einsum` of two arrays of one type, its sums in `dtype` and not rounded to that type.

    Their gradient is: with it in float32 both products of the backward pass would run in float32,
    at half the speed of 16 bits or less on an accelerator.
    """

    @jax.custom_vjp
    def wide(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, a, b, preferred_element_type=dtype)

    def pull_back(operands: tuple[jax.Array, jax.Array], grad: jax.Array):
        _, narrow = jax.vjp(functools.partial(jnp.einsum, subscripts), *operands)
        return narrow(grad.astype(operands[0].dtype))

    wide.defvjp(lambda a, b: (wide(a, b), (a, b)), pull_back)
    return wide(a, b)


def sum_rows(x: jax.Array) -> jax.Array:
    """The sum over the first axis, as a product with ones: in gradients XLA's own can be slow on a CPU."""
    return jnp.tensordot(jnp.ones(len(x), x.dtype), x, 1, precision=jax.lax.Precision.HIGHEST)


class Dense(nnx.Module):
    """`x @ kernel (+ bias)`, computed in the type of `x`."""

    def __init__(self, kernel: nnx.Param, *, bias: bool = False):
        """Takes the kernel [in, out] already drawn, so that its distribution stands where the layer is defined."""
        self.kernel = kernel
        self.bias = constant(0.0, kernel.shape[-1:], kernel.axes[-1:]) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps the last axis of `x`."""
        y = project(x, self.kernel)
        return y if self.bias is None else y + self.bias.astype(x.dtype)

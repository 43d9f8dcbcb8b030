"""Makes parameters: float32 arrays with logical names for their axes.

A model says what an axis means ("embed", "mlp", "expert"). One table in the trainer maps these
names to the axes of a device mesh and to the axes that Adafactor factors. They also say what a
parameter does (`arch_zoo.roles`). Every parameter that is drawn keeps the standard deviation it
is drawn with and its fan-in, the number of products in each of its sums, for
`arch_zoo.parametrization`.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


def normal(
    key: jax.Array,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    stddev: float,
    fan_in: int | None = None,
) -> nnx.Param:
    """A parameter drawn from N(0, stddev^2), by default with the second-last axis as its fan-in."""
    drawn = stddev * jax.random.normal(key, shape, jnp.float32)
    return nnx.Param(drawn, axes=axes, stddev=stddev, fan_in=fan_in or shape[-2])


def fan_in(
    key: jax.Array,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    batch_axis: tuple[int, ...] = (),
    scale: float = 1.0,
) -> nnx.Param:
    """A truncated normal parameter of variance `scale`^2 / fan-in.

    The fan-in is the second-last axis times the axes before it, except for those in `batch_axis`.
    """
    initializer = jax.nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", batch_axis=batch_axis
    )
    summed = math.prod(n for i, n in enumerate(shape[:-1]) if i not in batch_axis)
    drawn = scale * initializer(key, shape, jnp.float32)
    return nnx.Param(drawn, axes=axes, stddev=scale * summed**-0.5, fan_in=summed)


def glorot_uniform(key: jax.Array, shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """A uniform parameter of variance 2 / (fan-in + fan-out)."""
    drawn = jax.nn.initializers.glorot_uniform()(key, shape, jnp.float32)
    fan_in, fan_out = math.prod(shape[:-1]), math.prod(shape) // shape[-2]
    return nnx.Param(drawn, axes=axes, stddev=(2 / (fan_in + fan_out)) ** 0.5, fan_in=fan_in)


def triangular(
    key: jax.Array, length: int, axes: tuple[str, str], *, full: bool = False
) -> nnx.Param:
    """A square parameter of which row t has t + 1 entries, of variance 1 / (t + 1).

    The rest is zero and does not count as parameters. `full`: the rest is drawn like the entries.
    """
    drawn = jax.random.normal(key, (length, length)) * jnp.arange(1, length + 1)[:, None] ** -0.5
    # The entries' deviation depends on their row. It matters only beside that of another width.
    if full:
        return nnx.Param(drawn, axes=axes, stddev=1.0, fan_in=length)
    entries = length * (length + 1) // 2
    return nnx.Param(jnp.tril(drawn), axes=axes, stddev=1.0, fan_in=length, entries=entries)


def constant(value: float, shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """A parameter that starts at `value` everywhere, as scales (one) and biases (zero) do."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes)


def given(values: jax.Array, axes: tuple[str, ...]) -> nnx.Param:
    """A parameter that starts at these values."""
    return nnx.Param(values.astype(jnp.float32), axes=axes)


def project(
    x: jax.Array, kernel: nnx.Param | jax.Array, dtype: DTypeLike | None = None
) -> jax.Array:
    """`x @ kernel`, [..., I] to [..., J], computed in the type of `x`.

    With a `dtype` the sums are returned in it. The rows of `x` are joined first, so that the
    kernel's gradient sums over one axis. To sum over two, XLA's CPU compiler would first transpose
    a whole operand.
    """
    rows, matrix = x.reshape(-1, x.shape[-1]), kernel.astype(x.dtype)
    projected = product("NI,IJ->NJ", rows, matrix, dtype or x.dtype, pull_back=_pull_back)
    return projected.reshape(*x.shape[:-1], -1)


def affine(x: jax.Array, kernel: nnx.Param, bias: nnx.Param | None) -> jax.Array:
    """`x @ kernel + bias`, or without a bias, computed in the type of `x`."""
    y = project(x, kernel)
    return y if bias is None else y + bias.astype(x.dtype)


def _pull_back(
    rows_NI: jax.Array, matrix_IJ: jax.Array, grad_NJ: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradients of `rows @ matrix`.

    A CPU is slower at a product that reads a matrix by columns. The gradient of the matrix would
    read the rows that way. The barriers make XLA transpose the narrower of the rows and their
    gradient first, and the product, where necessary, last.
    """
    grad_rows_NI = grad_NJ @ matrix_IJ.T
    if jax.default_backend() != "cpu":
        return grad_rows_NI, rows_NI.T @ grad_NJ
    barrier = jax.lax.optimization_barrier
    if rows_NI.shape[1] <= grad_NJ.shape[1]:
        return grad_rows_NI, barrier(barrier(rows_NI.T) @ grad_NJ)
    return grad_rows_NI, barrier(barrier(grad_NJ.T) @ rows_NI).T


def product(
    subscripts: str,
    a: jax.Array,
    b: jax.Array,
    dtype: DTypeLike = jnp.float32,
    pull_back: Callable[..., tuple[jax.Array, jax.Array]] | None = None,
) -> jax.Array:
    """The `einsum` of two arrays of one type, with sums in `dtype` without rounding to the former.

    The gradient of the sums is rounded to it. In float32 it would make both products of the
    backward pass run in float32, which is at most half as fast as 16 bits on an accelerator.
    `pull_back(a, b, gradient)` gives both gradients another way than `einsum` would.
    """

    def sums(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(subscripts, a, b, preferred_element_type=dtype)

    def backward(operands: tuple[jax.Array, jax.Array], grad: jax.Array):
        grad = grad.astype(operands[0].dtype)
        if pull_back is not None:
            return pull_back(*operands, grad)
        return jax.vjp(functools.partial(jnp.einsum, subscripts), *operands)[1](grad)

    wide = jax.custom_vjp(sums)
    # `sums`, not `wide`: rematerialisation keeps a product only where it can see it.
    wide.defvjp(lambda a, b: (sums(a, b), (a, b)), backward)
    return wide(a, b)


def sum_rows(x: jax.Array) -> jax.Array:
    """The sum over the first axis, as a product with ones: XLA's own sums can be slow on a CPU."""
    return jnp.tensordot(jnp.ones(len(x), x.dtype), x, 1, precision=jax.lax.Precision.HIGHEST)


class Dense(nnx.Module):
    """`x @ kernel (+ bias)`, computed in the type of `x`."""

    def __init__(self, kernel: nnx.Param, *, bias: bool = False):
        """Takes the drawn kernel [in, out], so that the caller shows how it is initialised."""
        self.kernel = kernel
        self.bias = constant(0.0, kernel.shape[-1:], kernel.axes[-1:]) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps the last axis of `x`."""
        return affine(x, self.kernel, self.bias)

"""Counts the parameters and FLOPs of a configuration from the model itself, without arrays.

FLOPs are counted in the traced forward pass: 2 for each multiply-add of a matrix product.
Normalisations, softmaxes and activations do not count, as is usual. The taps of depthwise
convolutions are elementwise products. A layer puts them in a scope called `depthwise`, and there
each product counts as a multiply-add. Where papers disagree on what counts, a `Convention` decides.

Work that would be missed is refused: convolutions, loops of unknown length, linear algebra,
associative scans, and, where the result is larger than the residual stream, outer products that are
written as `*` and cumulative sums. A recurrence is written as an `einsum` in a `lax.scan`.
"""

import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core as jex_core

from arch_zoo.config import ModelConfig
from arch_zoo.conventions import DEFAULT, Convention
from arch_zoo.families import MODELS, build
from arch_zoo.layers.experts import DROPLESS
from arch_zoo.registry import ConfigError
from arch_zoo.skeleton import Batch, BatchSpec, Skeleton

# What has no count here: it is written as matrix products, or this module learns to count it.
_REFUSED = frozenset(
    {
        *("conv_general_dilated", "ragged_dot", "ragged_dot_general", "while", "fft", "qr", "lu"),
        *("triangular_solve", "cholesky", "eig", "eigh", "svd", "tridiagonal_solve"),
    }
)
_CUMULATIVE = frozenset({"cumsum", "cumprod", "cumlogsumexp"})

# A parameter with such an axis is a table of tokens, positions or steps.
_TABLES = {"vocab", "position", "relpos", "steps"}


@dataclasses.dataclass(frozen=True)
class ParamCount:
    """Numbers of parameters.

    Every table that is looked up by the number of a token, position or step counts as embedding, as
    in Kaplan et al. (2020, arXiv 2001.08361), who leave out vocabulary and positional embeddings.
    That includes the vectors of positions (Performer) and of steps (Universal), and T5's relative
    biases: the T5 paper calls them position embeddings, no matrix product uses them, and Hugging
    Face's `num_parameters(exclude_embeddings=True)` leaves them out too. Weights that are
    multiplied, such as Mixer's weights between positions, are not embedding. The table of an untied
    output layer is: the exponents of a fit depend on it as on the other one.

    Attributes:
      total: all parameters.
      embedding: the token tables and their factors, untied output tables, and the tables of
        positions and steps.
      active: the parameters that one token uses: of E experts, one or k.
      by_part: all parameters, by stack and layer.
    """

    total: int
    embedding: int
    active: int
    by_part: dict[str, int]

    @property
    def non_embedding(self) -> int:
        """All parameters except the tables of tokens, positions and steps."""
        return self.total - self.embedding


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """Floating point operations for one sequence; a multiply-add is two.

    Attributes:
      forward: one forward pass.
      by_part: the same by stack and layer. `products` are the products of queries with keys and of
        weights with values; `causal_products` are the same where half of the pairs are masked.
    """

    forward: int
    by_part: dict[str, int]

    @property
    def train(self) -> int:
        """One training step. The backward pass costs twice the forward pass.

        Recomputation is not counted.
        """
        return 3 * self.forward


@functools.lru_cache(maxsize=256)
def abstract_model(cfg: ModelConfig) -> Skeleton:
    """The model with shapes in place of arrays."""
    return jax.eval_shape(functools.partial(build, cfg), jax.random.key(0))


def count_params(cfg: ModelConfig) -> ParamCount:
    """Counts the parameters of `cfg`."""
    total = embedding = active = 0
    by_part: collections.Counter[str] = collections.Counter()
    for path, param in nnx.to_flat_state(nnx.state(abstract_model(_countable(cfg)), nnx.Param)):
        # Of a triangular matrix only one half is used.
        known = param.get_metadata()
        size = known.get("entries", math.prod(param.shape))
        experts = math.prod(
            n for n, axis in zip(param.shape, param.axes, strict=True) if axis == "expert"
        )
        total += size
        active += size * known.get("used", 1) // experts
        looked_up = path[0] == "embedding" or not _TABLES.isdisjoint(param.axes)
        embedding += size if looked_up else 0
        by_part[_param_part(path)] += size
    return ParamCount(total, embedding, active, dict(by_part))


def count_flops(
    cfg: ModelConfig,
    *lengths: int,
    convention: Convention = DEFAULT,
    batch_size: int = 1,
    **named_lengths: int,
) -> FlopCount:
    """Counts the FLOPs of one sequence.

    Args:
      cfg: the model.
      *lengths: those of the model's `batch_spec`, in its order or by name: `input_length` S and
        `target_length` T of an encoder-decoder (512 and 114); `length` L of a decoder-only model
        (1024) and, if its head is applied at the targets only, their number `targets`.
      convention: what counts.
      batch_size: sequences that compete for places at the experts. Only `experts="padded"` depends
        on it.
      **named_lengths: lengths by name.
    """
    cfg = _countable(cfg)
    model = abstract_model(cfg)
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    has_experts = any("expert" in param.axes for _, param in state)
    padded = convention.experts == "padded" and has_experts
    rows = batch_size if padded else 1
    spec = MODELS[cfg.family].batch_spec(rows, *lengths, **named_lengths)
    by_part = _traced(cfg, spec, train=padded)
    if convention.embedding == "one_hot":
        tables = (
            param.shape for path, param in state if path[0] == "embedding" and "vocab" in param.axes
        )
        tokens = sum(x.shape[1] for name, x in spec.items() if name.endswith("input_tokens"))
        by_part["embedding/one_hot"] = 2 * tokens * sum(map(math.prod, tables))
    for part in list(by_part):
        stack, _, rest = part.partition("/")
        if (stack == "head" and not convention.head) or (
            rest.endswith("products") and convention.attention == "none"
        ):
            del by_part[part]
        elif "causal_products" in rest.split("/") and convention.attention == "causal":
            length = spec["decoder_input_tokens"].shape[1]
            by_part[part] = by_part[part] * (length + 1) // (2 * length)
    if convention.sharing == "weights":
        schedules = {side.name: getattr(model, side.name).schedule for side in cfg.sides}
        for part in by_part:
            schedule = schedules.get(part.partition("/")[0], (0,))
            by_part[part] = by_part[part] * len(set(schedule)) // len(schedule)
    return FlopCount(sum(by_part.values()), dict(by_part))


def count_state(cfg: ModelConfig, *lengths: int, **named_lengths: int) -> int:
    """Counts the numbers that decoding one sequence keeps between two steps.

    Which segment a state belongs to is no such number. The lengths are those of `count_flops`; of a
    decoder-only model's row the prompt is a part.
    """
    spec = MODELS[cfg.family].batch_spec(1, *lengths, **named_lengths)
    max_length = spec["decoder_input_tokens"].shape[1]
    cache = jax.eval_shape(
        lambda model, batch: model.init_cache(batch, max_length)["layers"],
        abstract_model(cfg),
        spec,
    )
    return sum(
        math.prod(leaf.shape)
        for leaf in jax.tree.leaves(cache)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    )


def _traced(
    cfg: ModelConfig, batch: BatchSpec, *, train: bool, loops_once: bool = False
) -> collections.Counter[str]:
    """FLOPs of the forward pass by part, for one sequence of the batch.

    Args:
      cfg: the model.
      batch: the shapes of a batch.
      train: whether to trace the forward pass of training, where experts have a limited capacity.
      loops_once: count the body of a loop once, as XLA's cost analysis does.
    """
    model = abstract_model(dataclasses.replace(cfg, scan_layers=False) if loops_once else cfg)

    def forward(model: Skeleton, batch: Batch, key: jax.Array) -> tuple[jax.Array, ...]:
        return model.token_nll(batch, key=key, train=train)[:2]

    jaxpr = jax.make_jaxpr(forward)(model, batch, jax.random.key(0))
    by_part: collections.Counter[str] = collections.Counter()
    # Heads that are together wider than the residual stream carry more numbers than it.
    width = max(cfg.embed_dim, cfg.num_heads * cfg.head_dim)
    stream = width * max(math.prod(x.shape) for x in batch.values())
    _walk(jaxpr.jaxpr, "", 1, by_part, stream=stream, loops_once=loops_once)
    rows = batch["decoder_input_tokens"].shape[0]
    return collections.Counter({part: flops // rows for part, flops in by_part.items()})


def _countable(cfg: ModelConfig) -> ModelConfig:
    """A configuration with the same counts that is fast to trace.

    Layers that repeat are scanned, so that one period is traced. The type is float32, because in 16
    bits a GPU's fused kernels would hide products.
    """
    cfg = dataclasses.replace(cfg, dtype="float32", remat="none", scan_layers=False)
    try:
        scanned = dataclasses.replace(cfg, scan_layers=True)
        abstract_model(scanned)
    except ConfigError:
        return cfg
    return scanned


def _param_part(path: tuple) -> str:
    """`encoder/self_attention` for a weight at `encoder.blocks.3.self_attention.layer.query`."""
    return f"{path[0]}/{path[3]}" if path[1] == "blocks" else "/".join(map(str, path[:2]))


def _walk(
    jaxpr,
    scope: str,
    times: int,
    by_part: collections.Counter[str],
    *,
    stream: int,
    loops_once: bool,
) -> None:
    """Adds the FLOPs of every equation to the part that its scope names.

    A loop's body counts as often as it runs. `stream` is the size of the residual stream.

    Raises:
      NotImplementedError: an equation does work that is not counted.
    """
    broadcast = {}  # the axes along which a value was broadcast
    for eqn in jaxpr.eqns:
        inner = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
        if eqn.primitive.name == "broadcast_in_dim":
            broadcast[eqn.outvars[0]] = _new_axes(eqn)
        _refuse(eqn, inner, broadcast, stream)
        flops = times * _flops(eqn, inner)
        if flops:  # einsum adds its subscripts to the scope
            by_part["/".join(name for name in inner.split("/") if "->" not in name)] += flops
        repeats = eqn.params["length"] if eqn.primitive.name == "scan" and not loops_once else 1
        for sub in () if flops else jex_core.jaxprs_in_params(eqn.params):
            _walk(sub, inner, times * repeats, by_part, stream=stream, loops_once=loops_once)


def _refuse(eqn, scope: str, broadcast: dict, stream: int) -> None:
    """Raises NotImplementedError for work that `_flops` would miss."""
    name = eqn.primitive.name
    if name in _REFUSED:
        raise NotImplementedError(f"no FLOP count for {name} in {scope}")
    if not eqn.outvars or not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
        return
    counted = "depthwise" in scope.split("/")
    large = eqn.outvars[0].aval.size > stream and not counted
    if large and name in _CUMULATIVE:
        raise NotImplementedError(
            f"no FLOP count for {name} in {scope}: its values are more than the residual stream"
        )
    if name != "mul":
        return
    if large and _is_outer(eqn, broadcast):
        raise NotImplementedError(
            f"no FLOP count for an outer product by * in {scope}: write it as an einsum"
        )
    if not counted and _in_associative_scan(eqn):
        raise NotImplementedError(
            f"no FLOP count for associative_scan in {scope}: write it as a lax.scan"
        )


def _new_axes(eqn) -> frozenset[int]:
    """The axes longer than 1 along which `broadcast_in_dim` repeats its operand."""
    operand = dict(zip(eqn.params["broadcast_dimensions"], eqn.invars[0].aval.shape, strict=True))
    shape = eqn.params["shape"]
    return frozenset(i for i, size in enumerate(shape) if size > 1 and operand.get(i, 1) == 1)


def _is_outer(product, broadcast: dict) -> bool:
    """Whether both factors are repeated, each along axes that the other one has."""
    shape = product.outvars[0].aval.shape
    axes = [
        {i for i, size in enumerate(shape) if factor.aval.shape[i : i + 1] == (1,) and size > 1}
        | broadcast.get(factor, frozenset())
        for factor in product.invars
        if not isinstance(factor, jex_core.Literal)
    ]
    return len(axes) == 2 and all(axes) and axes[0].isdisjoint(axes[1])


def _in_associative_scan(eqn) -> bool:
    """JAX has no primitive for it, so it is known by the function that made the equation."""
    traceback = eqn.source_info.traceback
    return traceback is not None and any(
        frame.function_name.startswith("associative_scan") for frame in traceback.frames
    )


def _flops(eqn, scope: str) -> int:
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return (
            2
            * eqn.outvars[0].aval.size
            * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
        )
    if eqn.primitive.name == "mul" and "depthwise" in scope.split("/"):
        return 2 * eqn.outvars[0].aval.size
    if eqn.primitive.name == "jit" and eqn.params["name"] == DROPLESS:
        tokens_BLD, _, _, *kernels = (operand.aval.shape for operand in eqn.invars)
        return 2 * math.prod(tokens_BLD[:-1]) * sum(math.prod(shape[1:]) for shape in kernels)
    return 0

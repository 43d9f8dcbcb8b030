"""The configuration of one model: an architecture, its options and its dimensions."""

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, get_args

from arch_zoo import registry, sizes
from arch_zoo.registry import ConfigError
from arch_zoo.side import Side

if TYPE_CHECKING:
    from arch_zoo.architecture import Architecture

__all__ = ["ConfigError", "ModelConfig", "config", "config_from_dict"]

_UNITS = (
    "embed_dim",
    "mlp_dim",
    "num_heads",
    "head_dim",
    "vocab_size",
    "max_input_length",
    "max_target_length",
)
SizeRule = Literal["paper", "matched"]
SIZE_RULES = get_args(SizeRule)
_CHOICES = {"dtype": ("float32", "bfloat16"), "remat": ("none", "full", "dots")}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One resolved model: the architecture's rule for its size was applied to every dimension.

    Attributes:
      architecture: the inductive bias and its own options (experts, kernel widths, ...).
      size: the size it was made from. It only serves tables and names; the dimensions below are
        what is built.
      num_encoder_layers: blocks of the encoder.
      num_decoder_layers: blocks of the decoder.
      embed_dim: D, the width of the residual stream.
      mlp_dim: F, the hidden width of the feed-forward layer.
      num_heads: H.
      head_dim: K.
      shared_heads: all heads share one key and one value projection.
      tied_keys_values: keys and values share one projection.
      vocab_size: V, extra ids included.
      dropout_rate: of embeddings, residual branches, feed-forward hidden units and attention
        weights.
      dtype: the type that layers compute in. Parameters, softmax, losses and routers stay in
        float32.
      max_input_length: longest input, for architectures whose weights depend on it; others take any
        length.
      max_target_length: longest target, likewise.
      scan_layers: compile one period of blocks and loop over it. It compiles faster and computes
        the same values.
      remat: what is recomputed in the backward pass: nothing (`none`), whole blocks (`full`), or
        everything except matrix products (`dots`).
    """

    architecture: "Architecture"
    size: str
    num_encoder_layers: int
    num_decoder_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int
    head_dim: int
    shared_heads: bool = False
    tied_keys_values: bool = False
    vocab_size: int = 32128
    dropout_rate: float = 0.0
    dtype: str = "float32"
    max_input_length: int = 512
    max_target_length: int = 512
    scan_layers: bool = False
    remat: str = "none"

    def __post_init__(self):
        """Checks every value; the architecture checks its own options last."""
        for field in dataclasses.fields(self):
            if field.name != "architecture":
                check_type(
                    field.name,
                    getattr(self, field.name),
                    getattr(type(self), field.name, None),
                    field.type,
                )
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r}: allowed are {', '.join(allowed)}"
                )
        for name in ("num_encoder_layers", "num_decoder_layers", *_UNITS):
            most = sizes.MOST_UNITS if name in _UNITS else sizes.MOST_LAYERS
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(
                    f"{name}={getattr(self, name)}: must be at least 1 and at most {most}"
                )
        if self.vocab_size < 3:
            raise ConfigError(
                f"vocab_size={self.vocab_size}: padding, end of sequence and one token need at "
                "least 3"
            )
        if not 0 <= self.dropout_rate < 1:
            raise ConfigError(f"dropout_rate={self.dropout_rate}: must be at least 0 and below 1")
        self.architecture.check(self)

    def num_layers(self, side: Side) -> int:
        """The depth that the size gives to one side.

        An architecture may share or repeat blocks (`schedule`).
        """
        return getattr(self, f"num_{side.name}_layers")

    @property
    def name(self) -> str:
        """The registered name of the architecture."""
        return self.architecture.name

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values; `config_from_dict` is the inverse."""
        values = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name != "architecture"
        }
        return {
            "architecture": self.name,
            **values,
            "options": dataclasses.asdict(self.architecture),
        }


def check_type(name: str, value: Any, default: Any, annotation: Any) -> None:
    """Refuses a value that is not of its field's type.

    An int is accepted as a float, a bool never as an int.

    Raises:
      ConfigError: naming the key, the value and the type.
    """
    kind = getattr(annotation, "__name__", str(annotation))
    expected = {"int": int, "float": (int, float), "bool": bool, "str": str}.get(kind)
    if expected is None:  # a union or a tuple: take the type from the default
        expected = (type(default), type(None)) if default is not None else object
    if not isinstance(value, expected) or (isinstance(value, bool) and kind in ("int", "float")):
        raise ConfigError(f"{name}={value!r}: must be of type {kind}")


def config(name: str, size: str, **overrides: Any) -> ModelConfig:
    """The model `name` at `size`, such as `config("switch", "base-NL24", num_experts=32)`.

    Each override is a field of the model's configuration or one of the architecture's options. A
    size names the dimensions of the vanilla Transformer. The architecture turns them into its own
    (GLU takes two thirds of `mlp_dim`); overrides are applied after that, unchanged.

    Two more keys are not fields of the result but are replaced by the settings they stand for:

    * `variant`: a named setting of the options (`Architecture.variants`). Overrides take precedence
      over it.
    * `size_rule`: `paper` for the architecture's own rule, or `matched` for as many parameters as
      the vanilla model has (`arch_zoo.size_rules`).

    Raises:
      ConfigError: unknown architecture, size, operator or key; a value of the wrong type or outside
        its range.
    """
    cls = registry.get(name)
    own = {field.name for field in dataclasses.fields(cls)}
    shared = {field.name for field in dataclasses.fields(ModelConfig)} - {"architecture", "size"}
    if "variant" in overrides and "variant" not in own:
        overrides = _variant(cls, overrides.pop("variant")) | overrides
    size_rule = overrides.pop("size_rule", "paper")
    if size_rule not in SIZE_RULES:
        raise ConfigError(f"{name}: size_rule={size_rule!r}: allowed are {', '.join(SIZE_RULES)}")
    if size_rule == "matched" and "mlp_dim" in overrides:
        raise ConfigError(
            f"{name}: mlp_dim={overrides['mlp_dim']!r}: size_rule='matched' solves for it"
        )
    for key in overrides:
        if key not in own | shared:
            known = sorted(own | shared | {"size_rule", "variant"})
            raise ConfigError(f"{name}: unknown key {key!r}; known: {', '.join(known)}")
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in overrides.items()
        if key in own
    }
    for field in dataclasses.fields(cls):
        if field.name in options:
            check_type(field.name, options[field.name], field.default, field.type)
    architecture = cls(**options)
    dimensions = architecture.dimensions(sizes.dimensions(size))
    values = dataclasses.asdict(dimensions) | {
        key: value for key, value in overrides.items() if key in shared
    }
    cfg = ModelConfig(architecture=architecture, size=size, **values)
    if size_rule == "paper":
        return cfg
    from arch_zoo import size_rules  # it counts parameters, which needs JAX

    return size_rules.matched(cfg)


def _variant(cls: type["Architecture"], variant: Any) -> dict[str, Any]:
    """The settings of a named variant."""
    if not isinstance(variant, str) or variant not in cls.variants:
        known = ", ".join(cls.variants) or "none"
        raise ConfigError(f"{cls.name}: variant={variant!r} is unknown; known: {known}")
    return dict(cls.variants[variant])


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """Rebuilds a configuration from the output of `ModelConfig.to_dict()`, which run records hold.

    Raises:
      ConfigError: a key is missing or unknown, or a value is not allowed.
    """
    for key in ("architecture", "size"):
        if key not in values:
            raise ConfigError(f"model configuration: key {key!r} is missing")
    rest = {
        key: value
        for key, value in values.items()
        if key not in ("architecture", "size", "options")
    }
    return config(values["architecture"], values["size"], **rest, **values.get("options", {}))

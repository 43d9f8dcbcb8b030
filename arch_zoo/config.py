"""The configuration of one model: an architecture, its options and its dimensions.

`arch_zoo.resolve` makes it from a name, a size and overrides.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, get_args

from arch_zoo import sizes
from arch_zoo.registry import ConfigError
from arch_zoo.side import SIDES, Family, Prefix, Side

_UNITS = (
    "embed_dim",
    "mlp_dim",
    "num_heads",
    "head_dim",
    "vocab_size",
    "max_input_length",
    "max_target_length",
)
_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "remat": ("none", "full", "dots"),
    "family": get_args(Family),
    "prefix": get_args(Prefix),
    "parametrization": ("standard", "mup", "completep"),
    "short_conv": tuple(
        "".join(sites) for count in range(5) for sites in itertools.combinations("ABCD", count)
    ),
    "readout": ("each", "last"),
}

LONGEST_ROW = 1024
"""Tokens of a row of a decoder-only model, unless the configuration says otherwise."""

LATER = {"later": True}
"""Metadata of a field that was added after runs had been recorded; see `ModelConfig.identity`."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One resolved model: the architecture's rule for its size was applied to every dimension.

    Attributes:
      architecture: the inductive bias and its own options (experts, kernel widths, ...): an
        `arch_zoo.architecture.Architecture`, which is not imported here because it imports this.
      size: the size it was made from. It only serves tables and names; the dimensions below are
        what is built.
      num_encoder_layers: blocks of the encoder; 0 without one.
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
      max_target_length: longest target, or in a decoder-only model longest row, likewise.
      scan_layers: compile one period of blocks and loop over it. It compiles faster and computes
        the same values.
      remat: what is recomputed in the backward pass: nothing (`none`), whole blocks (`full`), or
        everything except matrix products (`dots`).
      family: `encoder_decoder`, or `decoder_only` for a language model.
      prefix: whether the inputs of a decoder-only model see only what is before them (`causal`), or
        all inputs (`bidirectional`).
      parametrization: how initial weights, factors in the forward pass and learning rates depend on
        the width (`mup`) and the depth (`completep`); see `arch_zoo.parametrization`.
      base_size: the size at which `mup` and `completep` are `standard`.
      short_conv: where a depthwise convolution of four taps is added to what it reads (Canon
        layers, Allen-Zhu, 2025, arXiv 2512.17351): before layers that mix positions (A), on their
        queries, keys and values (B), before feed-forward layers (C), and on their hidden units
        before the activation (D). Cross-attention has none.
      readout: whether the head of a decoder-only model reads the state of each position (`each`),
        or computes every position from the last one (`last`), as in an autoencoder.
      stream_epsilon: the epsilon of the norms of the residual stream.
      scale_tied_logits: logits that are products with the embedding are multiplied by D^-1/2, as in
        T5.1.0. Most other projects do not do that; imported models keep their own way.
    """

    architecture: Any
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
    family: str = dataclasses.field(default="encoder_decoder", metadata=LATER)
    prefix: str = dataclasses.field(default="causal", metadata=LATER)
    parametrization: str = dataclasses.field(default="standard", metadata=LATER)
    base_size: str = dataclasses.field(default="", metadata=LATER)
    short_conv: str = dataclasses.field(default="", metadata=LATER)
    readout: str = dataclasses.field(default="each", metadata=LATER)
    stream_epsilon: float = dataclasses.field(default=1e-6, metadata=LATER)
    scale_tied_logits: bool = dataclasses.field(default=True, metadata=LATER)

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
        if (self.family, self.prefix) not in SIDES:
            raise ConfigError(
                f"prefix={self.prefix!r}: only inputs of family='decoder_only' are a prefix"
            )
        layers = [f"num_{side.name}_layers" for side in self.sides]
        if self.num_encoder_layers and "num_encoder_layers" not in layers:
            raise ConfigError(
                f"num_encoder_layers={self.num_encoder_layers}: family={self.family!r} has no "
                "encoder"
            )
        for name in (*layers, *_UNITS):
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
        if not self.stream_epsilon > 0:
            raise ConfigError(f"stream_epsilon={self.stream_epsilon}: must be above 0")
        if (self.parametrization == "standard") != (not self.base_size):
            raise ConfigError(
                f"base_size={self.base_size!r}: parametrization={self.parametrization!r} "
                + ("has none" if self.base_size else "needs one")
            )
        if self.readout == "last" and self.family != "decoder_only":
            raise ConfigError("readout='last': only family='decoder_only' has it")
        if not self.scale_tied_logits and self.parametrization != "standard":
            raise ConfigError(
                f"scale_tied_logits=False: parametrization={self.parametrization!r} scales logits"
            )
        self.architecture.check(self)
        self.architecture.check_logits(self)
        self.architecture.check_short_conv(self)
        if self.family not in self.architecture.families:
            raise ConfigError(
                f"{self.name}: family={self.family!r}: it has only "
                f"{', '.join(self.architecture.families)}"
            )

    def num_layers(self, side: Side) -> int:
        """The depth that the size gives to one side.

        An architecture may share or repeat blocks (`schedule`).
        """
        return getattr(self, f"num_{side.name}_layers")

    @functools.cached_property
    def base(self) -> "ModelConfig":
        """This model at the base size of its parametrisation, with its own number of layers."""
        if not self.base_size:
            return self
        found = self.architecture.dimensions(sizes.dimensions(self.base_size))
        names = ("embed_dim", "mlp_dim", "num_heads", "head_dim")
        widths = {name: getattr(found, name) for name in names}
        plain = {"parametrization": "standard", "base_size": ""}
        return dataclasses.replace(self, size=self.base_size, **widths, **plain)

    @property
    def width_ratio(self) -> float:
        """D over that of the base."""
        return self.embed_dim / self.base.embed_dim

    @property
    def head_ratio(self) -> float:
        """K over that of the base."""
        return self.head_dim / self.base.head_dim

    @property
    def depth_ratio(self) -> float:
        """Layers over those of the base; 1 where the parametrisation leaves the depth alone."""
        if self.parametrization != "completep":
            return 1.0
        base = sizes.dimensions(self.base_size)
        layers = [f"num_{side.name}_layers" for side in self.sides]
        return sum(getattr(self, name) for name in layers) / sum(
            getattr(base, name) for name in layers
        )

    def with_layers(self, number: int) -> "ModelConfig":
        """The same model with this many layers on every side."""
        layers = {f"num_{side.name}_layers": number for side in self.sides}
        return dataclasses.replace(self, **layers)

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides of the model, in the order in which they run."""
        return SIDES[self.family, self.prefix]

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

    def identity(self) -> dict[str, Any]:
        """What `to_dict` gives, without fields that were added later and have their default.

        A hash of this stays the same when a field is added.
        """
        values = self.to_dict()
        for there, fields in self._added(values):
            for name, default in fields.items():
                if there[name] == default:
                    del there[name]
        return values

    def completed(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """An earlier `to_dict` of such a model, with the fields that were added since."""
        values = {**record, "options": dict(record.get("options", {}))}
        for there, fields in self._added(values):
            there |= fields | there
        return values

    def _added(self, values: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The fields that were added later with their defaults, beside the part they are in."""
        return [
            (
                there,
                {f.name: f.default for f in dataclasses.fields(config) if "later" in f.metadata},
            )
            for there, config in ((values, self), (values["options"], self.architecture))
        ]


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

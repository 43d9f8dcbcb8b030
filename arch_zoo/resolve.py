"""Makes a model's configuration from the name of an architecture, a size and overrides."""

import dataclasses
from typing import Any, Literal, get_args

from arch_zoo import registry, size_rules, sizes
from arch_zoo.config import LONGEST_ROW, ModelConfig, check_type
from arch_zoo.registry import ConfigError

SizeRule = Literal["paper", "matched"]
SIZE_RULES = get_args(SizeRule)


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
    given = {key: value for key, value in overrides.items() if key in shared}
    dimensions = architecture.dimensions(sizes.dimensions(size))
    values = dataclasses.asdict(dimensions) | _of_family(size, given.get("family")) | given
    cfg = ModelConfig(architecture=architecture, size=size, **values)
    if size_rule == "paper":
        return cfg
    alike = {key: given[key] for key in ("family", "prefix") if key in given}
    return size_rules.matched(cfg, config("transformer", size, **alike))


def _of_family(size: str, family: Any) -> dict[str, Any]:
    """The values of a size that are not those of an encoder-decoder."""
    if family != "decoder_only":
        return {}
    if any(operator.startswith("EL") for operator in size.split("-")[1:]):
        raise ConfigError(f"size {size!r}: EL sets encoder layers, and a {family} model has none")
    return {"num_encoder_layers": 0, "max_target_length": LONGEST_ROW}


def _variant(cls: type, variant: Any) -> dict[str, Any]:
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

"""Lists the architectures (`python -m arch_zoo list`) and counts what one model costs (`show NAME --size ...`)."""

import argparse
import dataclasses
import json
import sys
from typing import Any, NoReturn

import arch_zoo
from arch_zoo import conventions
from arch_zoo.config import SIZE_RULES

CONVENTION_HELP = {
    "head": "the output layer",
    "embedding": "finding a token's vector",
    "attention": "pairs of positions: all, only those not masked, none",
    "experts": "a token's own expert, or all places of all experts in training",
    "sharing": "shared blocks at each depth, or once",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Prints one line that names the mistake, without the usage text, and exits with 2."""
        self.exit(2, f"error: {message} (see `{self.prog} --help`)\n")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, or 2 if the user made a mistake."""
    parser = _Parser(prog="python -m arch_zoo", description=__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    defaults = argparse.ArgumentDefaultsHelpFormatter
    formats = {
        "choices": ("table", "json"),
        "default": "table",
        "help": "for a person or for a program",
    }
    verb = verbs.add_parser(
        "list", formatter_class=defaults, help="every architecture, its options, variants and paper"
    )
    verb.add_argument("--format", **formats)
    verb = verbs.add_parser(
        "show", formatter_class=defaults, help="parameters, memory and FLOPs of one model by part"
    )
    verb.add_argument("architecture", help="a name from `list`")
    verb.add_argument(
        "--size", default="base", help="a size, with scaling operators if wanted: base-NL24-DM512"
    )
    verb.add_argument("--variant", help="a named setting of its options, from `list`")
    rule = "what a size means: the architecture's own rule, or the vanilla model's parameters"
    verb.add_argument("--size-rule", choices=SIZE_RULES, default=SIZE_RULES[0], help=rule)
    verb.add_argument("--input-length", type=int, default=512, help="tokens of one input")
    verb.add_argument("--target-length", type=int, default=114, help="tokens of one target")
    verb.add_argument("--vocab-size", type=int, default=32128, help="tokens of the vocabulary")
    for name, values in conventions.choices().items():
        text = f"what counts as FLOPs: {CONVENTION_HELP[name]}"
        if values == (True, False):
            verb.add_argument(
                f"--{name}", action=argparse.BooleanOptionalAction, default=True, help=text
            )
        else:
            verb.add_argument(f"--{name}", choices=values, default=values[0], help=text)
    verb.add_argument(
        "--batch-size", type=int, default=1, help="sequences that compete for experts' places"
    )
    verb.add_argument("--format", **formats)
    options = parser.parse_args(arguments)
    try:
        if options.verb == "list":
            _print_list(zoo(), options.format)
        else:
            _print_costs(costs(options), options.format)
    except arch_zoo.ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def zoo() -> list[dict[str, Any]]:
    """Name, title, options with their defaults, named variants, and paper of every architecture."""
    return [
        {
            "name": cls.name,
            "title": cls.title,
            "options": dataclasses.asdict(cls()),
            "variants": {variant: dict(settings) for variant, settings in cls.variants.items()},
            "paper": cls.paper,
        }
        for cls in map(arch_zoo.get, arch_zoo.names())
    ]


def costs(options: argparse.Namespace) -> dict[str, Any]:
    """Parameters, forward FLOPs of one sequence and memory, in total and by part. No array is built."""
    lengths = {"max_input_length": options.input_length, "max_target_length": options.target_length}
    for name, value in (lengths | {"batch_size": options.batch_size}).items():
        if value < 1:
            raise arch_zoo.ConfigError(f"{name}={value}: must be at least 1")
    made = {"size_rule": options.size_rule} | (
        {"variant": options.variant} if options.variant else {}
    )
    cfg = arch_zoo.config(
        options.architecture, options.size, vocab_size=options.vocab_size, **lengths, **made
    )
    params = arch_zoo.count_params(cfg)
    convention = arch_zoo.Convention(
        **{name: getattr(options, name) for name in conventions.choices()}
    )
    shape = options.input_length, options.target_length
    flops = arch_zoo.count_flops(cfg, *shape, convention, options.batch_size)
    memory = arch_zoo.estimate_memory(cfg, *shape)
    parts = sorted({*params.by_part, *flops.by_part})
    return {
        "config": cfg.to_dict(),
        "input_length": options.input_length,
        "target_length": options.target_length,
        "parameters": {
            "total": params.total,
            "embedding": params.embedding,
            "non_embedding": params.non_embedding,
            "active": params.active,
        },
        "flops": {"forward": flops.forward, "train": flops.train},
        "convention": dataclasses.asdict(convention),
        "memory": dataclasses.asdict(memory),
        "parts": {
            part: {"parameters": params.by_part.get(part, 0), "flops": flops.by_part.get(part, 0)}
            for part in parts
        },
    }


def _print_list(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("architecture", "is", "options", "variants", "paper"):
        table.add_column(column, overflow="fold")  # a setting that is cut off could not be copied
    for row in rows:
        variants = "; ".join(
            f"{name}: {_settings(settings)}" for name, settings in row["variants"].items()
        )
        table.add_row(row["name"], row["title"], _settings(row["options"]), variants, row["paper"])
    Console().print(table)


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _print_costs(found: dict[str, Any], form: str) -> None:
    if form == "json":
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    cfg, params, flops, memory = (found[key] for key in ("config", "parameters", "flops", "memory"))
    table = Table("part", box=None, pad_edge=False)
    for column in ("parameters", "MB (f32)", "GFLOPs", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = found["parts"] | {"total": {"parameters": params["total"], "flops": flops["forward"]}}
    for part, row in rows.items():
        share = row["flops"] / flops["forward"]
        numbers = (
            f"{row['parameters']:,}",
            f"{row['parameters'] * 4e-6:,.1f}",
            f"{row['flops'] * 1e-9:,.2f}",
        )
        table.add_row(part, *numbers, f"{share:.1%}", style="bold" if part == "total" else None)
    console = Console()
    console.print(
        f"{cfg['architecture']} {cfg['size']}: {cfg['num_encoder_layers']}+{cfg['num_decoder_layers']} layers, "
        f"D {cfg['embed_dim']}, F {cfg['mlp_dim']}, {cfg['num_heads']} heads of {cfg['head_dim']}, "
        f"vocabulary {cfg['vocab_size']:,}",
        f"one sequence: {found['input_length']} input and {found['target_length']} target tokens",
        sep="\n",
    )
    console.print(table)
    counted = ", ".join(f"{name} {value}" for name, value in found["convention"].items())
    for line in (
        f"tables of tokens and positions {params['embedding']:,}, all else {params['non_embedding']:,}, "
        f"active per token {params['active']:,}",
        f"FLOPs: forward; one training step {flops['train'] * 1e-9:,.2f} G; counted: {counted}",
        f"memory of a training step: {2 * memory['parameters'] * 1e-6:,.1f} MB of weights and gradients; per sequence "
        f"{memory['activations'] * 1e-6:,.1f} MB kept for the backward pass, largest value "
        f"{memory['largest'] * 1e-6:,.1f} MB",
    ):
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

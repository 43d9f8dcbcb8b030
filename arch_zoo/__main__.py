"""Lists architectures (`list`) and sizes (`sizes`), and counts what a model costs (`show NAME`)."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

import arch_zoo
from arch_zoo import command_line
from arch_zoo.command_line import TableOrJson
from arch_zoo.config import LONGEST_ROW
from arch_zoo.conventions import DEFAULT, Convention
from arch_zoo.resolve import SizeRule
from arch_zoo.side import Family
from arch_zoo.sizes import DECODER_ONLY, OPERATORS, SIZES


@dataclasses.dataclass(frozen=True)
class ListVerb:
    """Lists every architecture with its options, variants and paper.

    Attributes:
      format: table for a person, json for a program.
    """

    format: TableOrJson = "table"

    def run(self) -> None:
        """Prints the list."""
        _print_list(zoo(), self.format)


@dataclasses.dataclass(frozen=True)
class SizesVerb:
    """Lists the named sizes, and the operators that change a dimension of a size.

    Attributes:
      format: table for a person, json for a program.
    """

    format: TableOrJson = "table"

    def run(self) -> None:
        """Prints the sizes and operators."""
        _print_sizes(self.format)


@dataclasses.dataclass(frozen=True)
class ShowVerb:
    """Shows parameters, memory and FLOPs of one model by part, without building any array.

    Attributes:
      architecture: a name from `list`.
      size: a named size, optionally with scaling operators, as in base-NL24-DM512; from `sizes`.
      variant: a named setting of the architecture's options, from `list`.
      set: options of the architecture or the model as KEY=VALUE, such as num_experts=32; values are
        JSON.
      size_rule: what a size means: the architecture's own rule (paper), or as many parameters as
        the vanilla model of that size (matched).
      family: encoder_decoder, or decoder_only for a language model.
      input_length: number of tokens of an input of an encoder-decoder.
      target_length: number of tokens of a target of an encoder-decoder.
      length: number of tokens of a row of a decoder-only model.
      vocab_size: number of tokens in the vocabulary.
      batch_size: number of sequences that share the capacity of the experts.
      format: table for a person, json for a program.
      convention: what counts as FLOPs.
    """

    architecture: tyro.conf.Positional[str]
    size: str = "base"
    variant: str | None = None
    set: tuple[str, ...] = ()
    size_rule: SizeRule = "paper"
    family: Family = "encoder_decoder"
    input_length: int = 512
    target_length: int = 114
    length: int = LONGEST_ROW
    vocab_size: int = 32128
    batch_size: int = 1
    format: TableOrJson = "table"
    convention: Annotated[Convention, tyro.conf.arg(name="")] = DEFAULT

    def run(self) -> None:
        """Prints the costs."""
        found = costs(self)
        if self.family != "decoder_only" and self.size.split("-")[0] in DECODER_ONLY:
            print(
                f"note: {self.size} is a size of decoder-only models, see --family", file=sys.stderr
            )
        _print_costs(found, self.format)


VERBS: dict[str, type] = {"list": ListVerb, "sizes": SizesVerb, "show": ShowVerb}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code: 0, or 2 for bad input."""
    typed = sys.argv[1:] if arguments is None else arguments

    def run() -> None:
        command_line.parse(typed, VERBS, "python -m arch_zoo", __doc__).run()

    return command_line.run(run, (command_line.UsageError, arch_zoo.ConfigError))


def zoo() -> list[dict[str, Any]]:
    """Name, title, options with their defaults, named variants, and paper of every architecture."""
    return [
        {
            "name": cls.name,
            "title": cls.title,
            "families": cls.families,
            "options": dataclasses.asdict(cls()),
            "variants": {variant: dict(settings) for variant, settings in cls.variants.items()},
            "paper": cls.paper,
        }
        for cls in map(arch_zoo.get, arch_zoo.names())
    ]


def costs(options: ShowVerb) -> dict[str, Any]:
    """What a model costs: parameters, and of a sequence forward FLOPs, memory and state.

    In total, and parameters and FLOPs by part. It builds no array.
    """
    for name in ("input_length", "target_length", "length", "batch_size"):
        if getattr(options, name) < 1:
            raise arch_zoo.ConfigError(f"{name}={getattr(options, name)}: must be at least 1")
    names = ("length",) if options.family == "decoder_only" else ("input_length", "target_length")
    lengths = {name: getattr(options, name) for name in names}
    made: dict[str, Any] = {"size_rule": options.size_rule, "vocab_size": options.vocab_size}
    if options.variant:
        made["variant"] = options.variant
    if options.family == "decoder_only":
        made |= {"family": options.family, "max_target_length": options.length}
    else:
        made |= {f"max_{name}": length for name, length in lengths.items()}
    for setting in options.set:
        key, value = command_line.parse_setting(setting)
        if key in made:
            raise arch_zoo.ConfigError(f"set: {key} has an option of its own")
        made[key] = value
    cfg = arch_zoo.config(options.architecture, options.size, **made)
    params = arch_zoo.count_params(cfg)
    flops = arch_zoo.count_flops(
        cfg, convention=options.convention, batch_size=options.batch_size, **lengths
    )
    memory = arch_zoo.estimate_memory(cfg, **lengths)
    state = arch_zoo.count_state(cfg, **lengths)
    # Some parts have parameters but no FLOPs, such as tables, and others the reverse.
    parts = sorted({*params.by_part, *flops.by_part})
    return {
        "config": cfg.to_dict(),
        **lengths,
        "parameters": {
            "total": params.total,
            "embedding": params.embedding,
            "non_embedding": params.non_embedding,
            "active": params.active,
        },
        "flops": {"forward": flops.forward, "train": flops.train},
        "convention": dataclasses.asdict(options.convention),
        "memory": dataclasses.asdict(memory),
        "state": state,
        "parts": {
            part: {"parameters": params.by_part.get(part, 0), "flops": flops.by_part.get(part, 0)}
            for part in parts
        },
    }


def _print_sizes(form: str) -> None:
    named = {name: dataclasses.asdict(dims) for name, dims in SIZES.items()}
    operators = {code: meaning for code, (_, meaning) in OPERATORS.items()}
    if form == "json":
        print(json.dumps({"sizes": named, "operators": operators}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("size")
    for column in ("layers", "D", "F", "heads", "head's K"):
        table.add_column(column, justify="right")
    for name, dims in SIZES.items():
        layers = f"{dims.num_encoder_layers}+{dims.num_decoder_layers}"
        layers = f"{dims.num_decoder_layers}" if name in DECODER_ONLY else layers
        numbers = (dims.embed_dim, dims.mlp_dim, dims.num_heads, dims.head_dim)
        table.add_row(name, layers, *map(str, numbers))
    Console(highlight=False).print(table)
    print(
        "\nLayers of encoder+decoder; a decoder-only model has the decoder's. An operator sets one"
        "\ndimension: base-NL24-DM512 is base with 24 layers in each stack and D 512."
    )
    for code, meaning in operators.items():
        print(f"  {code:4}{meaning}")


def _print_list(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("architecture", "is", "options", "variants", "paper"):
        table.add_column(column, overflow="fold")  # wraps: a setting cut short could not be copied
    for row in rows:
        variants = "; ".join(
            f"{name}: {_settings(settings)}" for name, settings in row["variants"].items()
        )
        table.add_row(row["name"], row["title"], _settings(row["options"]), variants, row["paper"])
    Console().print(table)


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _print_costs(found: dict[str, Any], form: str) -> None:
    """Prints what `costs` found: a table by part, then totals and the conventions behind them."""
    if form == "json":
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    cfg, params, flops, memory = (found[key] for key in ("config", "parameters", "flops", "memory"))
    table = Table("part", box=None, pad_edge=False)
    for column in ("parameters", "MB (f32)", "GFLOPs", "share"):  # share of the FLOPs
        table.add_column(column, justify="right", no_wrap=True)
    rows = found["parts"] | {"total": {"parameters": params["total"], "flops": flops["forward"]}}
    for part, row in rows.items():
        share = row["flops"] / flops["forward"]
        numbers = (
            f"{row['parameters']:,}",
            f"{row['parameters'] * 4e-6:,.1f}",  # MB: a float32 has four bytes
            f"{row['flops'] * 1e-9:,.2f}",
        )
        table.add_row(part, *numbers, f"{share:.1%}", style="bold" if part == "total" else None)
    console = Console()
    layers, tokens = (
        (f"{cfg['num_decoder_layers']}", f"{found['length']} tokens")
        if "length" in found
        else (
            f"{cfg['num_encoder_layers']}+{cfg['num_decoder_layers']}",
            f"{found['input_length']} input and {found['target_length']} target tokens",
        )
    )
    console.print(
        f"{cfg['architecture']} {cfg['size']}: {layers} layers, "
        f"D {cfg['embed_dim']}, F {cfg['mlp_dim']}, {cfg['num_heads']} heads of {cfg['head_dim']}, "
        f"vocabulary {cfg['vocab_size']:,}",
        f"one sequence: {tokens}",
        sep="\n",
    )
    console.print(table)
    counted = ", ".join(f"{name} {value}" for name, value in found["convention"].items())
    for line in (
        f"tables of tokens and positions {params['embedding']:,}, "
        f"everything else {params['non_embedding']:,}, "
        f"active per token {params['active']:,}",
        f"FLOPs: forward; one training step {flops['train'] * 1e-9:,.2f} G; counted: {counted}",
        f"memory of a training step: {2 * memory['parameters'] * 1e-6:,.1f} MB "
        f"of weights and gradients; per sequence "
        f"{memory['activations'] * 1e-6:,.1f} MB kept for the backward pass, largest value "
        f"{memory['largest'] * 1e-6:,.1f} MB",
        f"state: decoding keeps {found['state']:,} numbers of this sequence",
    ):
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

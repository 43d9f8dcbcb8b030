"""What a page of an architecture says that can be computed: options, structure, costs, parity.

Counting traces models of many layers, which takes a minute for the whole zoo. So what was counted
is kept in `.cache`, under a hash of the sources that it depends on.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

import arch_zoo
from arch_zoo.accounting import abstract_model
from arch_zoo.architecture import Architecture
from arch_zoo.seq2seq import Seq2Seq
from arch_zoo.sizes import SIZES
from tests import tolerances

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".cache" / "zoo_facts"
PLOTTED = ("nano", "centi", "tiny", "small", "base", "xl")
"""Sizes in tables and plots: `large` has as many layers as `xl` and would take as long again."""

DRAWN = "tiny"  # four layers: enough to see a pattern by depth
STATE_LENGTHS = (1024, 8192)
VANILLA = "transformer"

SEAMS = tuple(
    name
    for name, member in vars(Architecture).items()
    if inspect.isfunction(member) and not name.startswith(("_", "check", "stochastic"))
)


def source(name: str) -> Path:
    """The file of an architecture."""
    return Path(inspect.getfile(arch_zoo.get(name)))


def inside(name: str) -> bool:
    """Whether the package has the architecture; others may be registered by whoever imports it."""
    return arch_zoo.get(name).__module__.startswith("arch_zoo.architectures.")


def overridden(name: str) -> list[str]:
    """The seams that differ from the vanilla choice, in the order of `Architecture`."""
    cls = arch_zoo.get(name)
    return [seam for seam in SEAMS if getattr(cls, seam) is not getattr(Architecture, seam)]


def options(name: str) -> list[dict[str, str]]:
    """Name, type, default and meaning of every option."""
    cls = arch_zoo.get(name)
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        meanings |= attributes(base.__dict__.get("__doc__") or "")
    return [
        {
            "name": field.name,
            "type": _type(field.type),
            "default": repr(field.default),
            "meaning": meanings.get(field.name, ""),
        }
        for field in dataclasses.fields(cls)
    ]


def _type(kind: Any) -> str:
    """A type as it is written: `int`, `tuple[str, ...]`, `int | None`."""
    return kind.__name__ if type(kind) is type else str(kind)


def attributes(doc: str) -> dict[str, str]:
    """The section `Attributes:` of a docstring."""
    section = re.search(r"^Attributes:\n((?:[ ]+.*\n?|\n)+)", inspect.cleandoc(doc), re.MULTILINE)
    if section is None:
        return {}
    found = re.findall(r"^(\w+): (.*(?:\n[ ]+.*)*)", textwrap.dedent(section[1]), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def module_doc(name: str) -> str:
    """The docstring of an architecture's file."""
    return ast.get_docstring(ast.parse(source(name).read_text(encoding="utf-8"))) or ""


def deviations(name: str) -> str:
    """The paragraphs that begin with `Deviations.`, without that word; empty if it has none."""
    _, found, text = module_doc(name).partition("\n\nDeviations. ")
    return text if found else ""


@functools.cache
def counted(name: str) -> dict[str, Any]:
    """Structure and costs of one architecture, from `.cache` if they were counted before."""
    path = KEPT / f"{name}-{_fingerprint()}.json"
    if not path.exists():
        found = {"structure": structure(name), "costs": costs(name), "decoder_only": alone(name)}
        KEPT.mkdir(parents=True, exist_ok=True)
        for old in KEPT.glob(f"{name}-*.json"):
            old.unlink(missing_ok=True)
        # Two builds may run at once, so nobody must see half of a file.
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(found), encoding="utf-8")
        part.rename(path)
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def _fingerprint() -> str:
    """A hash of the zoo's sources and of this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted((ROOT / "arch_zoo").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def vocabulary() -> int:
    """The number of pieces that counts are made with, the default one."""
    return arch_zoo.config(VANILLA, PLOTTED[0]).vocab_size


def row() -> tuple[int, int]:
    """The default lengths of an encoder-decoder's row: inputs and targets."""
    parameters = inspect.signature(Seq2Seq.batch_spec).parameters
    return parameters["input_length"].default, parameters["target_length"].default


def costs(name: str) -> list[dict[str, Any]]:
    """Dimensions, parameters and forward FLOPs of an encoder-decoder at every plotted size."""
    return [_cost(arch_zoo.config(name, size)) for size in PLOTTED]


def alone(name: str) -> dict[str, Any] | None:
    """Costs and state of a decoder-only model of `base`; None where there is none."""
    if "decoder_only" not in arch_zoo.get(name).families:
        return None
    cfg = arch_zoo.config(name, "base", family="decoder_only", max_target_length=max(STATE_LENGTHS))
    states = {str(length): arch_zoo.count_state(cfg, length) for length in STATE_LENGTHS}
    short = dataclasses.replace(cfg, max_target_length=STATE_LENGTHS[0])
    flops = arch_zoo.count_flops(short, STATE_LENGTHS[0]).forward
    return _cost(short, flops) | {"flops_per_token": flops / STATE_LENGTHS[0], "state": states}


def _cost(cfg: arch_zoo.ModelConfig, flops: int | None = None) -> dict[str, Any]:
    params = arch_zoo.count_params(cfg)
    return {
        "size": cfg.size,
        "layers": [cfg.num_layers(side) for side in cfg.sides],
        "D": cfg.embed_dim,
        "F": cfg.mlp_dim,
        "heads": cfg.num_heads,
        "head_dim": cfg.head_dim,
        "total": params.total,
        "non_embedding": params.non_embedding,
        "active": params.active,
        "flops": arch_zoo.count_flops(cfg).forward if flops is None else flops,
    }


def structure(name: str) -> dict[str, Any]:
    """What a model is made of, in each family: the classes of its parts, by stack and depth."""
    return {
        family: _structure(arch_zoo.config(name, DRAWN, family=family))
        for family in arch_zoo.get(name).families
    }


def _structure(cfg: arch_zoo.ModelConfig) -> dict[str, Any]:
    model = abstract_model(cfg)
    stacks = []
    for side in cfg.sides:
        stack = getattr(model, side.name)
        by_depth = [_block(stack.blocks[which]) for which in stack.schedule]
        stacks.append(
            {
                "name": side.name,
                "class": _about(stack),
                "positions": stack.positions and _about(stack.positions),
                "norm": _about(stack.norm),
                "blocks": len(stack.blocks),
                "vanilla_depths": getattr(SIZES[cfg.size], f"num_{side.name}_layers"),
                "by_depth": by_depth,
            }
        )
    return {"embedding": _about(model.embedding), "head": _about(model.head), "stacks": stacks}


def _block(block: Any) -> list[dict[str, Any]]:
    return [{"name": name} | _about(getattr(block, name).layer) for name in block.names]


def _about(module: Any) -> dict[str, Any]:
    """Name, summary and plain settings of a part."""
    settings = {
        key: value
        for key, value in sorted(vars(module).items())
        if not key.startswith("_") and isinstance(value, bool | int | float | str)
    }
    doc = inspect.cleandoc(type(module).__doc__ or "").split("\n\n")[0]
    return {"class": type(module).__name__, "doc": " ".join(doc.split()), "settings": settings}


def parity(name: str) -> list[dict[str, str]]:
    """The goldens of an architecture: what was compared, whose code it was, and who wrote it."""
    rows = []
    for path in sorted((ROOT / "tests" / "parity" / "goldens").glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
        if about["model"]["name"] == name:
            rows.append(
                {
                    "golden": path.stem,
                    "what": f"the layer `{about['layer']}`" if about["layer"] else "a whole model",
                    "family": about["model"].get("family", "encoder_decoder"),
                    "oracle": about["oracle"],
                }
            )
    return rows


def recipes(name: str) -> list[dict[str, str]]:
    """The scripts whose goldens are this architecture's, with the first line of each docstring."""
    stems = [row["golden"] for row in parity(name)]
    found = []
    for path in sorted((ROOT / "tests" / "parity").glob("make_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        saved = any(pattern.fullmatch(stem) for pattern in _saved(tree) for stem in stems)
        if saved and _names(tree, name):
            first = (ast.get_docstring(tree) or "").split("\n")[0]
            found.append({"script": path.name, "says": first})
    return found


def _names(tree: ast.Module, name: str) -> bool:
    """Whether some text in a script is the architecture's name or begins with it and a dash."""
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return any(isinstance(text, str) and f"{text}-".startswith(f"{name}-") for text in texts)


def _saved(tree: ast.Module) -> list[re.Pattern[str]]:
    """The names that a script's calls of `save` may have, from their first arguments."""
    patterns = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "save"
            and node.args
        ):
            # segments_torch.save("gla", ...) adds the rest of the name itself.
            more = "(-lm-.*)?" if len(node.args) > 1 else ""
            patterns.append(re.compile(_pattern(node.args[0]) + more))
    return patterns


def _pattern(name: ast.expr) -> str:
    if isinstance(name, ast.Constant):
        return re.escape(str(name.value))
    if isinstance(name, ast.JoinedStr):
        return "".join(map(_pattern, name.values))
    if isinstance(name, ast.BinOp):
        return _pattern(name.left) + _pattern(name.right)
    return "[^-].*"


def tolerance() -> tuple[float, float]:
    """The largest allowed difference of outputs and of gradients."""
    return tolerances.PARITY, tolerances.PARITY_GRADIENT

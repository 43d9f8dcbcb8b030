"""The sentences at the top of BENCHMARKS.md: what each benchmark found, from its stored result."""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
Result = Mapping[str, Any]


def question(program: str) -> str:
    """The first sentence of a benchmark's own description."""
    path = FOLDER / f"{program}.py"
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.exists() else ""
    return (said or "").split("\n\n")[0].replace("\n", " ")


def finding(program: str, result: Result) -> str:
    """What it found, in a sentence; empty if nothing is stored."""
    told = _FINDINGS.get(program)
    return told(result) if told and result else ""


def _span(rows: list[Result], key: str) -> str:
    """The smallest and the largest value of a column."""
    values = [row[key] for row in rows if row.get(key) is not None]
    if not values:
        return "not measured"
    shape = "{:,}" if all(isinstance(value, int) for value in values) else "{:.2g}"
    return f"{shape.format(min(values))} to {shape.format(max(values))}"


def _mutation(found: Result) -> str:
    real = (found["tried"] - found["equivalent"]) if "tried" in found else found["of"]
    return f"{found['killed'] + found.get('timeout', 0)} of {real} mistakes are noticed"


def _step_time(found: Result) -> str:
    rows = [row for row in found["rows"] if not row["name"].startswith("lean")]
    measured = [row for row in rows if row.get("over_reference") is not None]
    parts = [f"time over FLOPs, relative to the vanilla model: {_span(rows, 'excess')}"]
    if measured:
        parts.append(f"time over that of PyTorch: {_span(measured, 'over_reference')}")
    if any(row.get("mfu") for row in rows):
        parts.append(f"MFU {_span(rows, 'mfu')}")
    return "; ".join(parts)


_FINDINGS: dict[str, Callable[[Result], str]] = {
    "compiler": lambda r: f"gradients differ by {_span(r['rows'], 'gradient')}",
    "fault_injection": lambda r: f"{r['kills']} kills, {len(r['different'])} differences",
    "fuzz_commands": lambda r: (
        f"{r['commands']} commands: {r['ended']['refused']} refused in one line, "
        f"{r['ended']['ran']} ran, {len(r['failures'])} failed"
    ),
    "gpu_traffic": lambda r: (
        f"{_span(r['rows'], 'kernels')} kernels a step at {r['shape']}, on an {r['device']}"
    ),
    "input_pipeline": lambda r: f"{r['rows_per_second']['ratio']:.0f} times the rows of seqio",
    "kill_study": lambda r: (
        f"{r['kills']} kills, {len(r['lost'])} cells lost, "
        + ("the same report" if r["same_report"] else "another report")
    ),
    "language_models": lambda r: (
        f"{_span(r['rows'], 'over_reference')} of Hugging Face's time for a step"
    ),
    "launcher": lambda r: f"{r['throughput_ratio']} times as fast as one cell after another",
    "loop_overhead": lambda r: f"{100 * r['overhead']:.1f} % of a step",
    "mixers": lambda r: f"{_span(r['rows'], 'over_llama')} of Llama's time per FLOP",
    "mutation": _mutation,
    "parallel_matrix": lambda r: f"{r['equal']} of {r['of']} are equal",
    "report": lambda r: f"{r['runs']:,} runs in {r['seconds']:.0f} s",
    "scaling_law_fit": lambda r: (
        f"{r['together_seconds']:.1f} s for {r['starts']:,} starts and "
        f"{r['refits_converged']:,} refits; SciPy's starts take "
        f"{_span(r['one_start_at_a_time'], 'over_ours')} times as long as ours"
    ),
    "seeds": lambda r: f"{r['seeds']} seeds in {r['ratio']:.2f} of the time of single ones",
    "step_time": _step_time,
}

"""Parses the places to predict at: `N=1e9,D=2e10`, or a compute budget `C=1e21`."""

import math

import numpy as np

from eval.laws import allocation
from eval.laws.fitting.fit import Fit
from train.records import InputError


def given(text: str) -> dict[str, float]:
    """`N=1e9,D=2e10` as numbers by name; empty if the text cannot be parsed."""
    parts = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(value) for name, _, value in parts}
    except ValueError:
        return {}


def outside(text: str, x: dict[str, np.ndarray], law: Fit) -> list[str]:
    """A warning if a place is outside the measured inputs, or if the law has no optimum there."""
    if any(np.isnan(v[0]) for v in x.values()):
        return [f"{text}: {allocation.why_not(allocation.undetermined(law))}"]
    far = [n for n, v in x.items() if not law.runs.x[n].min() <= v[0] <= law.runs.x[n].max()]
    return [f"{text} is outside the measured {', '.join(far)}: an extrapolation"] if far else []


def place(text: str, law: Fit, k: float) -> dict[str, np.ndarray]:
    """Parses `N=1e9,D=2e10` into logarithms of the form's inputs.

    C alone is spent at the best N and D (NaN if undetermined).

    Raises:
      InputError: the text is malformed, or its inputs are not those of the form.
    """
    typed = given(text)
    if not typed or not all(0 < value < math.inf for value in typed.values()):
        raise InputError(
            f"at: {text!r} is not like {','.join(f'{name}=1e9' for name in law.form.inputs)}"
        )
    if set(typed) == {"C"} and {"N", "D"} <= set(law.form.inputs):
        log_n = allocation.optimum(law.form, law.theta_P[None], np.array([typed["C"]]), k)[0][0, 0]
        log_n = math.nan if allocation.undetermined(law) else log_n
        typed = {"N": math.exp(log_n), "D": typed["C"] / k / math.exp(log_n)}
    if "U" in law.form.inputs and "U" not in typed:
        typed["U"] = typed.get("D", 0.0)
    if set(typed) != set(law.form.inputs):
        raise InputError(
            f"at: {text!r} gives {', '.join(typed)}; {law.form.name} needs "
            f"{', '.join(law.form.inputs)}"
        )
    return {name: np.array([math.log(value)]) for name, value in typed.items()}

"""Examples of every form: constants near the published ones, plausible inputs, and exact points."""

import numpy as np

from eval.laws import forms
from eval.laws.law_table import Runs, points

TRUTH: dict[str, dict[str, float]] = {
    "power": {"A": 25.0, "alpha": 0.1},
    "offset": {"E": 1.7, "A": 400.0, "alpha": 0.32},
    "bnsl": {"a": 1.5, "b": 30.0, "c_0": 0.12, "c_1": 0.2, "d_1": 3e8, "f_1": 0.5},
    "bnsl2": {
        **{"a": 1.2, "b": 30.0, "c_0": 0.02, "c_1": 0.25, "d_1": 3e7, "f_1": 0.3},
        **{"c_2": -0.2, "d_2": 3e9, "f_2": 0.3},
    },
    "kaplan_n": {"N_c": 8.8e13, "alpha_N": 0.076},
    "kaplan_d": {"D_c": 5.4e13, "alpha_D": 0.095},
    "kaplan_c": {"C_c": 3.1e8 * 8.64e19, "alpha_C": 0.050},
    "kaplan_nd": {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
    "kaplan_ns": {"N_c": 6.5e13, "S_c": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76},
    "chinchilla": {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28},
    "chinchilla_gamma": {"A": 2e3, "B": 9e3, "E": 1.2, "alpha": 0.45, "beta": 0.45, "gamma": 0.5},
    "overtrained": {"a": 166.2, "b": 366.7, "E": 1.8366, "alpha_c": -0.2729},
    "data_constrained": {
        **{"A": 521.0, "B": 1488.0, "E": 1.87, "alpha": 0.353, "beta": 0.353},
        **{"R_D_star": 15.39, "R_N_star": 5.31},
    },
    "routed": {
        "a": -0.082,
        "b": -0.108,
        "c": 0.009,
        "d": 1.104,
        "E_start": 1.847,
        "E_max": 314.478,
    },
    "downstream_exp": {"epsilon": 0.857, "k": 2.206, "gamma": 0.7146},
    "downstream_sigmoid": {"a": 0.6, "k": -3.0, "L_0": 2.6, "b": 0.25},
}


def inputs(name: str) -> dict[str, np.ndarray]:
    """Values of a form's inputs on a grid of about 50 points."""
    sizes = np.geomspace(5e6, 1e10, 8)
    if name in ("bnsl", "bnsl2"):
        return {"x": np.geomspace(1e5, 1e12, 60)}
    if name in ("power", "offset"):
        return {"x": np.geomspace(1e6, 1e11, 20)}
    if name == "kaplan_c":
        return {"C": np.geomspace(1e14, 1e22, 12)}
    if name.startswith("downstream"):
        return {"L": np.linspace(1.6, 6.0, 25)}
    if name == "routed":
        n, experts = np.meshgrid(np.geomspace(1e7, 1e9, 6), 2.0 ** np.arange(10))
        return {"N": n.ravel(), "experts": experts.ravel()}
    if name == "data_constrained":
        n, d, u = np.meshgrid(sizes, np.geomspace(1e9, 1e12, 6), np.geomspace(2e8, 2e10, 4))
        return {"N": n.ravel(), "D": np.maximum(d, u).ravel(), "U": u.ravel()}
    if name == "kaplan_ns":
        n, s = np.meshgrid(sizes, np.geomspace(500, 3e5, 7))
        return {"N": n.ravel(), "S": s.ravel()}
    n, d = np.meshgrid(sizes, np.geomspace(1e8, 1e12, 7))
    wanted = forms.FORMS[name].inputs
    return {key: value.ravel() for key, value in (("N", n), ("D", d)) if key in wanted}


def exact(name: str) -> Runs:
    """Points that lie exactly on the law."""
    x = inputs(name)
    return points(forms.FORMS[name].predict(TRUTH[name], **x), **x)

"""The laws that a study's records support, and the reasons given if they support none."""

import numpy as np
import pandas as pd

from eval.laws import forms
from eval.laws.example_points import TRUTH
from eval.laws.study_laws import laws


def table(
    form: str, sizes: int = 8, tokens: int = 1, seeds: int = 2, noise: float = 0.002
) -> pd.DataFrame:
    """Two architectures whose losses follow a law of N, D or x."""
    names, at = ("glu", "transformer"), [np.arange(k) for k in (2, sizes, tokens, seeds)]
    a, n, d, s = (v.ravel() for v in np.meshgrid(*at, indexing="ij"))
    params, seen = 1e7 * 4.0**n, 1e9 * 5.0**d
    inputs = {"N": params, "D": seen, "x": params * seen / 1e10}
    law = forms.get(form)
    loss = law.predict(TRUTH[form], **{k: inputs[k] for k in law.inputs})
    return pd.DataFrame(
        {
            "architecture": np.array(names)[a],
            "size": [f"size{i}" for i in n],
            "seed": s,
            "params_total": params,
            "tokens_seen": seen,
            "flops_train_total": inputs["x"],
            "flops_forward": inputs["x"] / 1e6,
            "upstream_nll": loss * np.exp(noise * np.random.default_rng(0).standard_normal(len(a))),
        }
    )


def test_the_richest_supported_form_is_fitted():
    found = laws(table("chinchilla", 5, 4), draws=50)
    assert list(found.pages) == ["glu", "transformer"] and set(found.parameters["form"]) == {
        "chinchilla"
    }
    assert len(found.pages["glu"].points) == 20  # one point per cell: the seeds are averaged
    assert not found.pages["glu"].isoflops.empty
    rows = found.parameters[found.parameters["symbol"] == "alpha"]
    assert (rows["lower"] < TRUTH["chinchilla"]["alpha"]).all() and (
        rows["upper"] > TRUTH["chinchilla"]["alpha"]
    ).all()
    assert set(found.checklist["architecture"]) == {"glu", "transformer"}


def test_one_token_count_gives_a_law_of_flops():
    found = laws(table("offset"), draws=50)
    assert (
        set(found.parameters["form"]) == {"offset"}
        and found.pages["glu"].x_name == "training FLOPs"
    )
    assert set(laws(table("offset", 4), draws=50).parameters["form"]) == {"power"}


def test_a_floor_that_the_data_do_not_show_is_not_fitted():
    found = laws(table("power", 7), draws=50)
    assert set(found.parameters["form"]) == {"power"} and not any(
        page.warnings for page in found.pages.values()
    )


def test_a_study_without_a_law_says_why():
    found = laws(table("offset", 3), draws=50)
    assert found.pages == {}
    assert found.parameters["note"].str.startswith("no law: power: 3 cells, 4 are needed").all()
    lost = table("offset", 4).assign(upstream_nll=np.nan)
    assert laws(lost).pages == {}
    late = table("offset", 4)
    late.loc[(late["architecture"] == "glu") & (late["size"] == "size3"), "upstream_nll"] = np.nan
    found = laws(late, draws=50)
    assert (
        list(found.pages) == ["transformer"]
        and found.parameters["note"].str.startswith("no law").sum() == 1
    )

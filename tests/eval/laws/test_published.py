"""Published constants give the published predictions.

Published tables, if they are available, give the published fits.
"""

import pathlib

import numpy as np
import pandas as pd
import pytest

from eval.analyses import saturation
from eval.laws import allocation, forms, kaplan_implications
from eval.laws.fitting.fit import fit
from eval.laws.fitting.objective import Objective
from eval.laws.law_table import points

SHARED = pathlib.Path(__file__).resolve().parents[4] / "shared" / "data"
CHINCHILLA = forms.get("chinchilla")
# Hoffmann et al., appendix D.3. The rounded constants are 406.4, 410.7, 1.69, .34 and .28; these
# are the unrounded ones.
HOFFMANN = {
    "A": np.exp(6.0073404),
    "B": np.exp(6.0179186),
    "E": np.exp(0.5267228),
    "alpha": 0.33917084,
    "beta": 0.2849083,
}


@pytest.mark.parametrize(
    "n, d, loss", [(280e9, 300e9, 1.993), (70e9, 1.4e12, 1.936)], ids=["Gopher", "Chinchilla"]
)
def test_hoffmann_predicts_gopher_and_chinchilla(n, d, loss):
    rounded = {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}
    assert CHINCHILLA.predict(rounded, N=n, D=d)[0] == pytest.approx(loss, abs=1e-3)


@pytest.mark.parametrize(
    "n, flops, tokens",
    [
        (400e6, 2.21e19, 9.2e9),
        (1e9, 1.62e20, 27.1e9),
        (10e9, 2.46e22, 410.1e9),
        (67e9, 1.71e24, 4.1e12),
        (1e12, 5.65e26, 94.1e12),
    ],
)
def test_hoffmann_allocates_as_in_table_a3(n, flops, tokens):
    """Within 8 %; rounding the constants to two digits would move the optimum by 18 to 30 %."""
    theta = CHINCHILLA.search(HOFFMANN)[None]
    best = np.exp(allocation.optimum(CHINCHILLA, theta, np.array([flops]))[0][0, 0])
    assert best == pytest.approx(n, rel=0.08)
    assert flops / 6 / best == pytest.approx(tokens, rel=0.08)


def test_hoffmann_exponents_are_46_and_54_hundredths():
    closed = allocation.chinchilla_exponents(HOFFMANN)
    assert (round(closed["a"], 2), round(closed["b"], 2)) == (0.46, 0.54)


def test_golden_section_finds_the_closed_form_optimum():
    closed = allocation.chinchilla_exponents(HOFFMANN)
    flops = np.array([1e18, 1e21, 1e24])
    searched = forms.get("chinchilla_gamma")
    for form, params in ((CHINCHILLA, HOFFMANN), (searched, {**HOFFMANN, "gamma": 1.0})):
        best = np.exp(allocation.optimum(form, form.search(params)[None], flops)[0][0])
        np.testing.assert_allclose(best, closed["G"] * (flops / 6) ** closed["a"], rtol=1e-6)


def test_kaplan_laws_give_the_published_predictions():
    assert forms.get("kaplan_n").predict({"N_c": 8.8e13, "alpha_N": 0.076}, N=1.5e9)[
        0
    ] == pytest.approx(2.304, abs=2e-3)
    assert kaplan_implications.compute_exponent() == pytest.approx(
        0.054, abs=2e-3
    )  # from the rounded constants .0525
    derived = kaplan_implications.derived_allocation()
    assert derived["N"] == pytest.approx(0.71, abs=0.04)
    assert sum(derived.values()) == pytest.approx(1)  # C = 6 N B S


def test_kaplan_data_needed_is_5000_n_to_the_74_hundredths():
    for n in (1e7, 1e9, 1e11):
        assert kaplan_implications.data_needed(n) == pytest.approx(5e3 * n**0.74, rel=0.3)
        assert kaplan_implications.overfitting(
            n, kaplan_implications.data_needed(n)
        ) == pytest.approx(0.02)


def test_kaplan_allocation_breaks_down_near_a_trillion_parameters():
    """Section 6.3: L(D) meets L(C_min) near 1e4 PF-days, 1e12 parameters and tokens, 1.7 nats."""
    c = np.geomspace(1, 1e8, 4001)
    spent = kaplan_implications.allocation(c)
    data_limit = (
        kaplan_implications.PUBLISHED.d_c / spent["D"]
    ) ** kaplan_implications.PUBLISHED.alpha_d
    at = int(
        np.argmin(
            np.abs(
                np.log(data_limit)
                - np.log(
                    (kaplan_implications.PUBLISHED.cmin_c / c)
                    ** kaplan_implications.PUBLISHED.alpha_cmin
                )
            )
        )
    )
    assert 3e3 < c[at] < 1e5 and data_limit[at] == pytest.approx(1.7, abs=0.1)
    assert 5e11 < spent["N"][at] < 5e12 and 1e11 < spent["D"][at] < 2e12


def test_kaplan_batch_and_early_stopping():
    assert kaplan_implications.critical_batch(1.0) == 2.1e8
    assert kaplan_implications.min_steps(
        100.0, kaplan_implications.critical_batch(2.0), 2.0
    ) == pytest.approx(50)
    assert kaplan_implications.min_compute(
        100.0, kaplan_implications.critical_batch(2.0), 2.0
    ) == pytest.approx(50)
    assert kaplan_implications.early_stopping_step(
        1e9, 1e9
    ) < kaplan_implications.early_stopping_step(1e9, 1e10)
    assert kaplan_implications.loss_ns(1e9, 1e12) == pytest.approx(
        (6.5e13 / 1e9) ** 0.077, rel=1e-4
    )
    assert kaplan_implications.non_embedding_params(48, 1600) == pytest.approx(
        1.475e9, rel=1e-3
    )  # GPT-2 XL
    assert kaplan_implications.embedding_params(50257, 1024, 1600) == 51281 * 1600
    assert kaplan_implications.forward_flops(1.5e9, 48, 1024, 1600) == 3e9 + 2 * 48 * 1024 * 1600


def test_repeated_tokens_are_worth_what_was_published():
    """Muennighoff et al.: 4 epochs are almost as good as new tokens, 40 epochs add nothing."""
    form = forms.get("data_constrained")
    constants = np.exp([6.255414, 7.3049974, 0.6254804])
    law = dict(
        zip(form.symbols, [*constants, 0.3526596, 0.3526596, 15.387756, 5.309743], strict=True)
    )

    def loss(epochs, unique):
        return form.predict(law, N=1e9, D=epochs * 25e9, U=unique)[0]

    assert loss(4, 25e9) / loss(4, 1e12) < 1.005
    gained = [loss(e, 25e9) - loss(2 * e, 25e9) for e in (1, 4, 40)]
    assert gained[0] > gained[1] > 10 * gained[2] > 0


# mlfoundations/scaling: the 17-task split of its released constants.
SPLIT_17 = (
    *("bigbench_operators", "pubmed_qa_labeled", "hellaswag_zeroshot", "boolq", "arc_easy", "coqa"),
    *(
        "bigbench_dyck_languages",
        "lambada_openai",
        "bigbench_novel_concepts",
        "winograd",
        "bigbench_cs_algorithms",
    ),
    *("commonsense_qa", "bigbench_qa_wikidata", "hellaswag", "copa", "squad", "piqa"),
)


@pytest.fixture(scope="module")
def testbed():
    path = SHARED / "mlfoundations_scaling" / "testbed_flat.csv"
    if not path.is_file():
        pytest.skip(
            "the public table mlfoundations_scaling/testbed_flat.csv is not beside this checkout"
        )
    table = pd.read_csv(path)
    table = table[table["train"] == "rpj"].copy()
    table["error"] = 1 - table[[f"acc_{task}" for task in SPLIT_17]].mean(axis=1)
    return table.set_index(["model", "cc"])


def test_mlfoundations_five_point_fit_and_its_four_errors(testbed):
    small = ["d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8"]
    five = testbed.loc[[(model, 1.0) for model in small] + [(small[0], 16.0)]]
    six = testbed.loc[[*five.index, ("open_lm_1b", 1.0)]]
    raw = Objective("l2", space="raw")
    law = fit(forms.get("overtrained"), points(five["loss_c4_val"], N=five["N"], D=five["D"]), raw)
    error = fit(
        forms.get("downstream_exp"), points(six["error"].to_numpy(), L=six["loss_c4_val"]), raw
    )
    assert law.params == pytest.approx(
        {"a": 166.2, "b": 366.7, "E": 1.8366, "alpha_c": -0.2729}, rel=5e-4
    )
    assert error.params == pytest.approx({"epsilon": 0.8570, "k": 2.206, "gamma": 0.7146}, rel=5e-4)
    assert (
        any("5 points for 4" in line or "open" in line for line in law.warnings)
        or law.condition > 1
    )
    published = {("open_lm_1b", 32.0): (0.7103, 3.6365), ("open_lm_7b", 1.0): (0.7320, 0.0464)}
    for key, (loss_error, score_error) in published.items():
        run = testbed.loc[key]
        predicted = law.predict({"N": np.log([run["N"]]), "D": np.log([run["D"]])})
        score = error.predict({"L": np.log(predicted)})
        assert round(100 * abs(predicted[0] / run["loss_c4_val"] - 1), 4) == loss_error
        assert round(100 * abs(score[0] / run["error"] - 1), 4) == score_error


def test_small_pythia_models_saturate():
    path = SHARED / "pythia" / "pythia_v1_evals.csv"
    if not path.is_file():
        pytest.skip("the public table pythia/pythia_v1_evals.csv is not beside this checkout")
    published = {"70m": (94.3, 142.4), "160m": (24.8, 38.1), "410m": (10.5, 10.8)}
    sizes = [*published, "1.4b"]
    names = saturation.CheckpointColumns(
        run_id="model",
        value="lambada_openai.ppl",
        where=("shots=zero", "model=" + ",".join(f"pythia-{size}" for size in sizes)),
    )
    found = saturation.of_table(path, names).table().set_index("run_id")
    for size, (best, last) in published.items():
        row = found.loc[f"pythia-{size}"]
        assert (round(row["best"], 1), round(row["last"], 1)) == (best, last)
    assert found.loc["pythia-1.4b", "last_over_best"] == 1
    assert found.loc["pythia-160m", "verdict"] == "becomes worse"


def test_clark_dense_power_law():
    path = SHARED / "clark_routing" / "curves.csv.gz"
    if not path.is_file():
        pytest.skip("the public table clark_routing/curves.csv.gz is not beside this checkout")
    table = pd.read_csv(path)
    keep = (
        (table["router_type"] == "Dense")
        & (table["routing_frequency"] == 0.5)
        & (table["k"] == 1)
        & (table["seed"] == 42)
    )
    last = table[keep].sort_values("step").groupby("hyper_id").tail(1)
    runs = points(last["loss_validation"].to_numpy(), x=last["dense_parameter_count"])
    law = fit(forms.get("power"), runs, Objective("l2"))
    assert len(last) == 5
    assert np.log10(law.params["A"]) == pytest.approx(1.0652, abs=5e-4)
    assert law.params["alpha"] == pytest.approx(0.0785, abs=5e-5)

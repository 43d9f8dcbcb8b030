"""Numbers that contradict their column's unit are refused unless the user insists."""

import pytest

from tests.eval.data.tables import LAW

RUN = "architecture,size,params_total,flops_forward,upstream_nll,downstream_x,downstream_y\n"


def rows(*changes: dict[int, object]) -> str:
    """Three sizes of one architecture; each change maps a column to its value in that row."""
    table = [
        ["a", "s", "1e7", "1e9", "4", "50", "40"],
        ["a", "m", "1e8", "1e10", "3.5", "60", "50"],
        ["a", "l", "1e9", "1e11", "3", "70", "60"],
    ]
    for row, change in zip(table, changes, strict=False):
        for column, value in change.items():
            row[column] = str(value)
    return RUN + "\n".join(map(",".join, table))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            rows({2: 10}, {2: 100}),
            "row 2: params_total = 10 is below 1000: is the column in thousands, millions or bil",
        ),
        (rows({3: 1000}, {3: 10000}), "row 2: flops_forward = 1000 is below 1e+06"),
        (rows({2: "1e16"}), "row 2: params_total = 1e16 is above 1e+15"),
        (
            rows({4: 60}, {4: 33}, {4: 20}),
            "row 2: upstream_nll = 60 is above 13.8 nats, a uniform guess among a million",
        ),
        (rows({4: 60}, {4: 33}, {4: 20}), "a perplexity? --upstream-is ppl"),
        (rows({}, {4: 400}), "row 3: upstream_nll = 400 is above 13.8 nats"),
        (rows({4: -4}, {4: -3.5}, {4: -3}), "row 2: upstream_nll = -4 is not above zero"),
        (
            rows({5: 0.5, 6: 0.4}, {5: 0.6, 6: 0.5}, {5: 0.7, 6: 0.6}),
            "downstream_x = 0.5 is within 0 and 1, as all sco",
        ),
        (
            rows({5: 0.5}, {5: 0.6}, {5: 0.7}),
            "row 2: downstream_x = 0.5 is a fraction beside columns of percent",
        ),
        (rows({}, {5: 0.6, 6: 0.5}), "row 3: downstream_x = 0.6 is a fraction among percentages"),
        (rows({5: 160}), "row 2: downstream_x = 160 is outside -100 to 100"),
    ],
)
def test_every_verb_refuses_what_cannot_be(desk, table, said):
    desk.put(table)
    for verb in ("slopes", "pareto", "compare", "report"):
        assert said in desk.refused(verb)


def test_whoever_knows_better_says_so(desk):
    desk.put(rows({2: 10}, {2: 100}, {5: 0.4}))
    assert "--trust-units" in desk.refused("slopes")
    assert desk.slope("--trust-units") == pytest.approx(0.5)
    small = LAW.replace("10000000,", "10,", 3)
    assert "params = 10 is below 1000" in desk.put(small).refused("fit")
    assert desk.fit("--trust-units")[0]["points"] == 9


def test_the_right_option_reads_them(desk):
    fractions = rows({5: 0.5, 6: 0.4}, {5: 0.6, 6: 0.5}, {5: 0.7, 6: 0.6})
    assert desk.put(fractions).slope("--fractions", pair="FD") == pytest.approx(10)
    assert "downstream_x = 50 is outside -1 to 1; without --fractions?" in desk.put(rows()).refused(
        "slopes", "--fractions"
    )
    ppl = rows(*({4: 2.718281828459045**loss} for loss in (4, 3.5, 3)))
    assert desk.put(ppl).slope("--upstream-is", "ppl") == pytest.approx(0.5)
    below = desk.put(rows({4: 0.5})).refused("slopes", "--upstream-is", "ppl")
    assert "row 2: upstream_nll = 0.5 is below 1; a perplexity is needed" in below
    assert "is not below zero; a negative log-perplexity" in desk.put(rows()).refused(
        "slopes", "--upstream-is", "neg_log_ppl"
    )


def test_a_whole_column_in_millions_moves_no_slope_but_is_reported(desk):
    rows_, said = desk.put(rows({2: 10}, {2: 100}, {2: 900})).slopes(pair="PU")
    assert (
        float(rows_[0]["slope"]) > 0
        and "params_total is below 1000: is the column in thousands" in said
    )


def test_costs_of_one_cell_are_of_one_size(desk):
    table = "architecture,size,seed,params_total,flops_forward,upstream_nll\n"
    table += "a,s,0,1e9,1e13,4\na,s,1,1e9,1e7,4\na,m,0,1e10,1e14,3.5\n"
    table += "a,xs,0,1e8,1e10,5\na,n,0,1e7,1e8,6\n"
    assert (
        "row 2: flops_forward = 1e13 is 1e+06 times that of row 3, of the same cell (a-s)"
        in desk.put(table).refused("slopes")
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("10000000,1000000000,", "10000000,1000,"),
            "row 2: tokens = 1000 is over 1e+06 times off its neighbours",
        ),
        (("4.7057", "110.6"), "row 2: loss = 110.6 is above 13.8 nats"),
    ],
)
def test_laws_refuse_the_same(desk, change, said):
    desk.put(LAW.replace(*change))
    for verb, more in (
        ("fit", []),
        ("predict", ["--at", "C=1e20"]),
        ("allocate", ["--budget", "1e20"]),
        ("next", []),
    ):
        assert said in desk.refused(verb, *more)


def test_a_gap_that_may_be_two_units_is_reported(desk):
    table = LAW.replace("\n1000000000,", "\n1000000000000,")
    assert (
        "params leaps from 1e+08 to 1e+12 (row 8): does it mix units?" in desk.put(table).fit()[1]
    )


def test_scores_above_the_perfect_one(desk):
    lines = LAW.split()
    table = "\n".join(
        [f"{lines[0]},score", *(f"{line},{70 - 2 * i}" for i, line in enumerate(lines[1:]))]
    )
    said = desk.put(table).refused("chain", "--at", "N=1e9,D=1e10")
    assert "row 2: score = 70 is outside -1 to 1; --perfect 100?" in said
    assert "row 2: score = 70 is outside" in desk.refused("fit", "--form", "downstream_sigmoid")
    fractions = "\n".join(
        [f"{lines[0]},score", *(f"{line},{0.7 - i / 50}" for i, line in enumerate(lines[1:]))]
    )
    said = desk.put(fractions).refused("chain", "--at", "N=1e9,D=1e10", "--perfect", "100")
    assert "score = 0.7 is within 0 and 1, as all scores are: fractions? --perfect 1" in said


def test_settings_apart_from_inputs(desk):
    lines = LAW.split()
    both = [f"{line},{lr}" for lr in ("1e-3", "3e-3") for line in lines[1:]]
    said = desk.put("\n".join([f"{lines[0]},lr", *both])).refused("fit")
    assert "row 2 and row 11 are one cell (N=10000000, D=1000000000) but differ in lr" in said
    assert desk.fit("--where", "lr=1e-3")[0]["points"] == 9
    assert desk.fit("--group", "none")[0]["points"] == 18


def test_a_condition_names_what_is_there(desk):
    desk.put(
        "a=b,"
        + "\n".join(
            f"{name}{line}"
            for name, line in zip(["", '"x,y",', "z,"], LAW.split()[:3], strict=True)
        )
    )
    assert "no row has a=b=Z; the column has x,y, z" in desk.refused("fit", "--where", "a=b=Z")
    assert desk.fit("--where", "a=b=x,y")[0]["points"] == 1

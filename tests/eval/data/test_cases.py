"""Tables that were once misread into wrong numbers, with the right answers."""

import json

import pytest

from eval.analyses.slopes import Slopes
from eval.data.study import read_study
from eval.report import write
from tests.eval import run_directories
from tests.eval.data.tables import LAW, RUNS

HISTORY = "architecture,size,seed,flops_forward,step,upstream_nll\n"


def test_a_repeated_option_appends_its_values(desk):
    """This holds for places, conditions and budgets.

    No value is lost, and one option may also have several values.
    """
    desk.put(LAW)
    places = ["N=1e8,D=1e10", "N=1e9,D=1e11"]
    common = ["--format", "json", "--bootstrap", "5"]
    for arguments in (["--at", places[0], "--at", places[1]], ["--at", *places]):
        code, out, err = desk.run("predict", *common, *arguments)
        assert code == 0, err
        rows = json.loads(out)["predictions"]
        assert [row["prediction"] for row in rows] == pytest.approx([3.2120, 2.4894], abs=1e-4)
    code, out, err = desk.run("allocate", *common, "--budget", "1e19", "--budget", "1e20")
    assert code == 0 and [row["flops"] for row in json.loads(out)["optima"]] == [1e19, 1e20], err
    code, out, err = desk.run("fit", *common, "--fix", "E=1.8", "--fix", "alpha=0.34")
    assert code == 0 and (json.loads(out)["E"], json.loads(out)["alpha"]) == pytest.approx(
        (1.8, 0.34)
    ), err
    desk.put(RUNS + "b,s,1e9,4\nb,m,1e10,3\n")
    (row,), _ = desk.slopes(
        "--where", "architecture=a", "--where", "size=s,m"
    )  # the first condition leaves b out, the second l
    assert (row["architecture"], row["n_sizes"]) == ("a", "2")


def test_an_error_beside_a_score_is_no_task(desk):
    desk.put(
        "architecture,size,flops_forward,downstream_boolq,downstream_boolq_stderr\n"
        "a,s,1e9,50,1\na,m,1e10,60,1\na,l,1e11,70,1\n"
    )
    (row,), said = desk.slopes(pair="FD")
    assert float(row["slope"]) == pytest.approx(10)
    assert (
        "No tasks, but errors or counts of the columns beside them: downstream_boolq_stderr."
        in said
    )


@pytest.mark.parametrize("tail", ["se", "se_eval", "std", "n", "ci_low", "ci95", "sem", "lower"])
def test_counts_and_intervals_are_no_tasks_either(desk, tail):
    desk.put(
        f"architecture,size,flops_forward,downstream_x,downstream_x_{tail}\n"
        "a,s,1e9,50,3\na,m,1e10,60,2\na,l,1e11,70,1\n"
    )
    assert desk.slope(pair="FD") == pytest.approx(10)


def test_a_perplexity_is_no_percentage(desk):
    table = "architecture,size,flops_forward,downstream_x,downstream_wiki_ppl\n"
    table += "a,s,1e9,50,30\na,m,1e10,60,20\n"
    rows, said = desk.put(table).slopes(pair="FD")
    assert float(rows[0]["slope"]) == pytest.approx(10) and "no tasks: downstream_wiki_ppl" in said
    assert "'downstream_wiki_ppl' is no score" in desk.refused(
        "slopes", "--downstream", "downstream_wiki_ppl"
    )


@pytest.mark.parametrize("step", ["step{}", "step_{}", "{}", "checkpoint-{}", "{}.0"])
def test_steps_are_numbers(desk, step):
    rows = [
        ("s", 1e9, 9000, 4.2),
        ("s", 1e9, 10000, 4.0),
        ("m", 1e10, 9000, 3.9),
        ("m", 1e10, 10000, 3.0),
    ]
    lines = [f"a,{size},{flops},{step.format(at)},{loss}" for size, flops, at, loss in rows]
    desk.put("architecture,size,flops_forward,step,upstream_nll\n" + "\n".join(lines))
    assert desk.slope() == pytest.approx(1)
    desk.put(desk.path.read_text().replace(step.format(9000), "early", 1))
    assert "row 2: step = 'early' is not an integer" in desk.refused("slopes")


def test_the_last_row_stands_for_a_run_whatever_it_says(desk):
    desk.put(
        HISTORY + "a,s,0,1e9,1,5\na,s,0,1e9,2,4\na,m,0,1e10,1,4.9\na,m,0,1e10,2,\n"
        "a,l,0,1e11,1,\na,l,0,1e11,2,\n"
    )
    (row,), said = desk.slopes()
    assert (row["n_sizes"], row["runs_missing"], row["slope"]) == ("1", "2", "")
    assert (
        "have no loss in their last row, but had one before (diverged?), and count as missing: "
        "a-m-s0 (row 5)" in said
    )
    assert "have no loss in any row, and count as missing: a-l-s0 (row 7)" in said


@pytest.mark.parametrize("word", ["inf", "nan", "NaN", "NA"])
def test_a_loss_that_is_no_number_any_more_is_missing(desk, word):
    rows = "a,s,0,1e9,1,5\na,s,0,1e9,2,4\na,m,0,1e10,1,4\na,m,0,1e10,2,3\n"
    rows += f"a,l,0,1e11,1,3\na,l,0,1e11,2,{word}\n"
    (row,), said = desk.put(HISTORY + rows).slopes()
    assert (
        float(row["slope"]) == pytest.approx(1)
        and row["runs_missing"] == "1"
        and "a-l-s0 (row 7)" in said
    )


def test_runs_that_end_before_others_of_their_cell_are_named(desk):
    desk.put(
        HISTORY + "a,s,0,1e9,1,5\na,s,0,1e9,2,4\na,s,1,1e9,1,5\na,m,0,1e10,1,4\na,m,0,1e10,2,3\n"
    )
    _, said = desk.slopes()
    assert (
        "1 runs end before the others of their cell, and are averaged with them: a-s-s1 (step 1 of "
        "2)" in said
    )


LR = """architecture,size,lr,flops_forward,upstream_nll
a,s,1e-3,1e9,4
a,s,5e-2,1e9,4.5
a,m,1e-3,1e10,3.5
a,m,5e-2,1e10,9.5
"""


def test_settings_are_no_replicates(desk):
    said = desk.put(LR).refused("slopes")
    assert "row 2 and row 3 are one cell (a-s) but differ in lr (2 values: 1e-3, 5e-2)" in said
    assert "--where lr=1e-3" in said and "--protocol lr" in said and "--ignore lr" in said
    assert desk.slope("--where", "lr=1e-3") == pytest.approx(0.5)
    assert desk.slope("--where", "lr=0.001") == pytest.approx(0.5)
    assert desk.slope("--ignore", "lr") == pytest.approx(-2.25)
    for verb in ("pareto", "compare", "report"):
        assert "differ in lr" in desk.refused(verb)


def test_settings_are_distinguished_from_results(desk):
    seeds = [("s", 1e9, 0, 4.0), ("s", 1e9, 1, 4.2), ("m", 1e10, 0, 3.5), ("m", 1e10, 1, 3.7)]
    lines = [
        f"a,{s},{f},{seed},{loss},{loss + 0.01},node{seed},{seed}" for s, f, seed, loss in seeds
    ]
    head = "architecture,size,flops_forward,seed,upstream_nll,train_nll,hostname,{}\n"
    assert desk.put(head.format("retries") + "\n".join(lines)).slope() == pytest.approx(0.5)
    assert "differ in router_noise (2 values: 0, 1)" in desk.put(
        head.format("router_noise") + "\n".join(lines)
    ).refused("slopes")


def test_one_seed_twice_says_what_differs(desk):
    said = desk.put(
        "architecture,size,flops_forward,seed,upstream_nll,router\na,s,1e9,0,4,x\na,s,1e9,0,4.1,y\n"
    ).refused("slopes")
    assert (
        "row 3: run 'a-s-s0' appears twice (row 2 as well; they differ in router: --where "
        "router=x?)" in said
    )


def test_one_name_is_one_run(desk):
    desk.put(
        "Name,architecture,size,flops_forward,step,upstream_nll\nr,a,s,1e9,1,5\nr,a,s,1e9,2,4\nr,a,m,1e10,1,5\nr,a,m,1e10,2,3\n"
    )
    assert "row 4: size = 'm' but run 'r' has 's' in row 2: one name for two runs?" in desk.refused(
        "slopes", "--run-id", "Name"
    )
    desk.put(
        "Name,architecture,size,flops_forward,step,upstream_nll\nr,a,s,1e9,1,5\nr,a,s,1e9,1,4\n"
    )
    assert "row 3: Name 'r' is there twice at step 1 (row 2 as well)" in desk.refused(
        "slopes", "--run-id", "Name"
    )


def test_a_comma_at_the_end_of_rows_shifts_nothing(desk):
    desk.put(
        "run,architecture,size,flops_forward,upstream_nll,train_nll\nr1,a,s,1e9,4,3.9,\nr2,a,m,1e10,3.5,3.4,\n"
    )
    assert desk.slope() == pytest.approx(0.5)
    desk.put("run,architecture,size,flops_forward,upstream_nll,\nr1,a,s,1e9,4,\nr2,a,m,1e10,3.5\n")
    assert desk.slope() == pytest.approx(0.5)


def test_words_are_read_as_they_are_written(desk):
    lines = LAW.splitlines()
    rows = [f"{name},{line}" for name in ("None", "NA") for line in lines[1:]]
    rows = [row.replace(",4.7057", ",4.5645") if row.startswith("NA") else row for row in rows]
    desk.put("\n".join([f"router,{lines[0]}", *rows]))
    found, _ = desk.fit("--group", "router", "--form", "power", "--x", "tokens")
    assert list(found["groups"]) == ["None", "NA"] and found["groups"]["None"]["points"] == 9
    desk.put(desk.path.read_text().replace("4.7057", "", 1))
    assert "row 2: loss is empty" in desk.refused("fit", "--group", "router")


def test_row_names_are_no_column(desk):
    law, _ = desk.put(LAW).fit()
    lines = LAW.splitlines()
    for head, name in (
        ("", "w{}"),
        ("", "{}"),
        (",", "{}"),
        (",", "w{}"),
        ('"",', '"w{}"'),
        ("Unnamed: 0,", "{}"),
    ):
        rows = [f"{name.format(i)},{line}" for i, line in enumerate(lines[1:])]
        found, _ = desk.put("\n".join([head + lines[0], *rows])).fit()
        assert [found[s] for s in ("A", "B", "E", "alpha", "beta")] == [
            law[s] for s in ("A", "B", "E", "alpha", "beta")
        ]
    desk.put(
        "\n".join([lines[0], *(f"w{i},{line}" for i, line in enumerate(lines[1:]))]).replace(
            "3.8085", "x"
        )
    )
    assert "row 4 (w2): loss = 'x' is not a number" in desk.refused("fit")


def test_a_heading_that_was_forgotten_is_no_row_name(desk):
    rows = [f"{line},{seed}" for seed, line in enumerate(LAW.splitlines()[1:], start=3)]
    said = desk.put("\n".join(["params,tokens,loss", *rows])).refused("fit")
    assert "row 2 has 4 cells, the header 3" in said


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_reports_own_tables_give_the_same_slopes(tmp_path, seeds):
    study = run_directories.write_study(
        tmp_path, run_directories.ZOO[:2], run_directories.LADDER[:5], seeds, study="s"
    )
    read = read_study(study)
    from eval.data import neutral
    from eval.report import tables

    (tmp_path / "runs.csv").write_text(neutral.csv(read.runs))
    (tmp_path / "table1.csv").write_text(neutral.csv(tables.cells(read)))
    want = Slopes(read.runs).table(links=("semilog",))
    for name in ("runs.csv", "table1.csv"):
        again = write.load(tmp_path / name)
        found = Slopes(again.runs).table(links=("semilog",))
        for column in ("slope", "intercept", "ci_low", "ci_high", "p"):
            assert found[column].to_numpy() == pytest.approx(
                want[column].to_numpy(), rel=1e-9, nan_ok=True
            ), name
        assert list(again.runs["downstream_mean"]) == pytest.approx(
            list(again.runs.filter(regex="downstream_python").mean(axis=1))
        )


def test_names_are_stripped_and_lookalikes_are_reported(desk):
    desk.put(
        " architecture , size,flops_forward , upstream_nll\n a,s ,1e9, 4\n a "
        ",s,1e9,4.2\nGLU,s,1e9,4\nglu,m,1e10,3\n"
    )
    rows, said = desk.slopes()
    assert [(row["architecture"], row["n_sizes"], row["n_runs"]) for row in rows] == [
        ("GLU", "1", "1"),
        ("a", "1", "2"),
        ("glu", "1", "1"),
    ]
    assert "architecture: 'GLU' and 'glu' differ in capitals or hidden characters alone" in said
    desk.put(
        "group,"
        + "\n".join(
            f"{name}{line}"
            for name, line in zip(["", "A,", "a,"], LAW.splitlines()[:3], strict=True)
        )
    )
    assert (
        "'A' and 'a' differ in capitals"
        in desk.run("fit", "--group", "group", "--form", "power", "--x", "tokens")[2]
    )


def test_a_history_of_checkpoints_has_few_runs(desk):
    """Whatever the run's column is called.

    AICc and F tests count independent rows.
    """
    rows = [
        (f"w{i}", n, d * (1 + i / 9), 1.8 + 400 * n**-0.34 + 410 * (d * (1 + i / 9)) ** -0.28)
        for i, n in enumerate((1e7, 1e7, 1e8, 1e8, 1e9, 1e9))
        for d in (1e9, 3e9, 1e10)
    ]
    for name, steps in (
        ("run_id", False),
        ("Name", False),
        ("exp", False),
        ("Versuch", True),
        ("Versuch", False),
    ):
        head = f"{name},params,tokens,loss" + ",step" * steps
        desk.put(
            "\n".join(
                [head, *(",".join(map(str, row)) + f",{row[2] / 1e6:.0f}" * steps for row in rows)]
            )
        )
        found, said = desk.fit()
        assert (found["points"], found["runs"], found["aicc"]) == (18, 6, None), name
        assert (
            name == "run_id"
        ) or f"rows that share {name} are taken as checkpoints of one run (6 runs)" in said
        apart, _ = desk.fit("--cluster", "none")
        assert apart["runs"] == 18 and apart["aicc"] is not None


def test_a_grid_with_labels_is_no_history(desk):
    lines = LAW.splitlines()
    rows = [f"{line.split(',')[0][:-6]}M,{line}" for line in lines[1:]]
    found, said = desk.put("\n".join([f"label,{lines[0]}", *rows])).fit()
    assert found["runs"] == 9 and "warning" not in said


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_tokens_off_by_a_factor_are_found_by_c_over_nd(desk, factor):
    rows = [line.split(",") for line in LAW.splitlines()[1:]]
    table = [
        f"{n},{float(d) * factor:.12g},{6 * float(n) * float(d):.12g},{loss}" for n, d, loss in rows
    ]
    desk.put("\n".join(["params,tokens,flops,loss", *table]))
    found, _ = desk.fit("--tokens", "tokens")
    assert any(
        f"C / (N D) is {6 / factor:.3g}, where 6 is usual" in line for line in found["warnings"]
    )


def test_chained_budgets_are_reported(desk):
    rows = ["params,tokens,loss"]
    for n in (1e7, 1.5e7, 2e7, 3e7, 4e7, 6e7, 8e7, 12e7):
        for d in (1e9, 1.2e9, 1.5e9, 1.8e9, 2.2e9, 2.7e9):
            rows.append(f"{n},{d},{1.8 + 400 * n**-0.34 + 410 * d**-0.28:.6f}")
    code, out, err = desk.put("\n".join(rows)).run("fit", "--approach", "2")
    assert "are chains of runs, each within a factor of 1.28 of the next" in out + err and code in (
        0,
        2,
    )


def test_the_plain_table(desk):
    assert desk.put(RUNS).slope() == pytest.approx(0.5)


def test_one_name_of_a_run_is_of_one_size(desk):
    lines = LAW.splitlines()
    desk.put("\n".join([f"run_id,{lines[0]}", *(f"r,{line}" for line in lines[1:])]))
    said = desk.refused("fit")
    assert (
        "row 5 (run r): params = 100000000 but row 2 (run r) of this run has 10000000: one name "
        "for two" in said
    )
    assert (
        desk.fit("--cluster", "run_id")[0]["runs"] == 1
        and desk.fit("--cluster", "none")[0]["runs"] == 9
    )


@pytest.mark.parametrize("name", ["iteration", "steps"])
def test_checkpoints_by_another_name_are_no_replicates(desk, name):
    desk.put(
        f"architecture,size,flops_forward,{name},upstream_nll\na,s,1e9,1,5\na,s,1e9,2,4\na,m,1e10,1,5\na,m,1e10,2,3\n"
    )
    said = desk.refused("slopes")
    assert (
        f"differ in {name} (2 values: 1, 2)" in said
        and f"--step {name} if they are checkpoints of one run" in said
    )
    assert desk.slope("--step", name) == pytest.approx(1)


def test_a_row_twice_is_counted_once_or_not_at_all(desk):
    twice = RUNS + RUNS.splitlines()[1] + "\n"
    for verb in ("slopes", "pareto", "compare", "report"):
        assert "row 5: repeats row 2 in every column (architecture = 'a', ...)" in desk.put(
            twice
        ).refused(verb)


@pytest.mark.parametrize(
    "name", ["n_heads", "state_dim", "grad_accumulation", "z_loss", "run_type", "loss_weight"]
)
def test_a_setting_may_sound_like_a_result(desk, name):
    desk.put(f"architecture,size,{name},flops_forward,upstream_nll\n" + LR.split("\n", 1)[1])
    assert f"differ in {name}" in desk.refused("slopes")


@pytest.mark.parametrize(
    "name", ["train_loss", "loss_valid", "_runtime", "gpu", "accuracy_dev_mean", "job id"]
)
def test_a_result_is_no_setting(desk, name):
    desk.put(f"architecture,size,{name},flops_forward,upstream_nll\n" + LR.split("\n", 1)[1])
    assert desk.slope() == pytest.approx(-2.25)


def test_models_that_keep_different_states_are_no_replicates(desk):
    """State is a cost: it may be a setting of the model, and must not be averaged over."""
    desk.put(
        "architecture,size,state_size,flops_forward,upstream_nll\n"
        + "a,s,16,1e9,3.1\na,s,64,1e9,3.0\n"
    )
    assert "state_size = 64 is 4 times that of row 2" in desk.refused("slopes")

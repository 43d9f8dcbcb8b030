"""The comparison of depth and width protocols, and the grid of depths and widths."""

import numpy as np
import pandas as pd
import pytest

from eval.analyses.comparison import Comparison
from eval.analyses.everything import protocol_pairs
from eval.analyses.protocols import DepthWidth, Protocols
from eval.analyses.question import Question
from eval.analyses.slopes import Slopes
from eval.simulation.simulate import Line, Noise, study
from tests.eval.frames import by
from train.records import InputError


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    names = ("transformer", "lconv")
    parts = [
        study(
            {n: Line(upstream_slope=slope) for n in names},
            sizes=5,
            seeds=3,
            protocol=protocol,
            seed=i,
        )
        for i, (protocol, slope) in enumerate((("", 0.54), ("depth", 0.7), ("width", 0.5)))
    ]
    return pd.concat(parts, ignore_index=True)


def test_slopes_by_protocol_are_the_slopes_of_each(table):
    rows = by(Protocols(table).table(pairs=("FU",)), "architecture", "protocol", "link")
    for protocol in ("depth", "width"):
        for (name, link), row in by(
            Slopes(table, Question(protocol=protocol)).table(pairs=("FU",)), "architecture", "link"
        ).items():
            assert rows[name, protocol, link]["slope"] == pytest.approx(row["slope"])


def test_difference_is_a_contrast_of_two_lines(table):
    rows = Protocols(table).differences().set_index("architecture")
    ladders = table[(table["architecture"] == "lconv") & (table["protocol"] != "")]
    renamed = ladders.assign(architecture=ladders["protocol"], protocol="")
    same = Comparison(renamed, Question(reference="width")).contrasts().iloc[0]
    ours = rows.loc["lconv", ["difference", "se", "df", "ci_low", "p"]].astype(float)
    np.testing.assert_allclose(
        ours, same[["difference", "se", "df", "ci_low", "p"]].astype(float), rtol=1e-8
    )
    assert rows.loc["all", "difference"] == pytest.approx(rows["difference"].drop("all").mean())
    assert (rows["verdict"] == "depth scales better").all()


def test_without_two_ladders_there_is_nothing_to_say(table):
    rows = Protocols(table).differences(first="depth", second="heads")
    assert rows.empty and "verdict" in rows.columns
    with pytest.raises(InputError, match="'protocol' is missing"):
        Protocols(table.drop(columns="protocol")).differences()


def test_few_sizes_are_not_tested(table):
    rows = Protocols(table[table["size"].isin(["size0", "size1", "size2"])]).differences()
    assert (rows["verdict"] == "not tested").all() and rows["note"].str.contains("3 sizes").all()
    assert np.isfinite(rows["difference"]).all()


def test_grid_from_columns_and_from_operators():
    table = study({"transformer": Line()}, sizes=3, seeds=2, noise=Noise(0, 0, 0, 0))
    given = DepthWidth(table.assign(num_layers=[2, 2, 4, 4, 8, 8], embed_dim=64)).grid()
    assert given[["depth", "width", "n_runs"]].to_numpy().tolist() == [
        [2, 64, 2],
        [4, 64, 2],
        [8, 64, 2],
    ]
    assert given["quality"].tolist() == pytest.approx([-3.5, -3.5 + 0.54 * 0.6, -3.5 + 0.54 * 1.2])
    operators = table.assign(
        size=table["size"].map(
            {"size0": "base-NL2-DM64", "size1": "base-NL4-DM64", "size2": "base"}
        )
    )
    read = DepthWidth(operators).grid()
    assert read["depth"].tolist() == [2, 4] and read["note"].str.startswith("2 runs").all()
    assert DepthWidth(table).grid().empty


def test_every_two_protocols_are_compared_depth_and_width_first(table):
    more = study({"transformer": Line(upstream_slope=0.3)}, sizes=5, seeds=3, protocol="ff", seed=9)
    both = pd.concat([table, more], ignore_index=True)
    assert protocol_pairs(both) == [("depth", "width"), ("depth", "ff"), ("width", "ff")]
    assert protocol_pairs(table[table["protocol"] == ""]) == [
        ("depth", "width")
    ]  # of which nothing comes

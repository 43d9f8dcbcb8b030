"""Wrong values of options end in a one-line message, never in a traceback or in acceptance.

This is a short version of `benchmarks/fuzz_commands.py`.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_commands
from benchmarks.fuzz_commands import Place

# Left out here, since they take minutes: `prepare` loads TensorFlow, `study` starts workers,
# `report` draws figures. The script tries them too.
PLACES = [
    place
    for place in fuzz_commands.places()
    if place.verb not in ("prepare", "study", "report", "finetune")
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz")
    with fuzz_commands.apart(directory):
        yield fuzz_commands.Ground(directory).prepare()


@pytest.mark.slow
def test_every_command_works_with_nothing_wrong_in_it(ground):
    assert not fuzz_commands.broken(sorted({(place.room, place.verb) for place in PLACES}), ground)


def wrong_values(place):
    """Values that no command can accept, so that the test never waits for real work."""
    return [
        value for value in fuzz_commands.values(place) if fuzz_commands.is_nonsense(place, value)
    ]


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_every_command_does_its_work_or_refuses_in_one_line(ground, data):
    place = data.draw(st.sampled_from(PLACES))
    values = wrong_values(place) if place.verb == "pretrain" else fuzz_commands.values(place)
    if values:
        outcome = fuzz_commands.run(
            place, data.draw(st.sampled_from(list(values))), ground, patience=120
        )
        assert outcome.kind in ("ran", "refused"), outcome


@pytest.mark.parametrize(
    ("place", "value", "nonsense"),
    [
        (Place("eval", "fit", "--level", numeric=True), "nan", True),
        (Place("eval", "fit", "--level", numeric=True), "-1", True),
        (Place("eval", "fit", "--level", numeric=True), "text", True),
        (
            Place("eval", "fit", "--level", numeric=True),
            "2.5",
            False,
        ),  # this range is checked only by the command itself
        (Place("eval", "next", "--budget", numeric=True), "inf", False),
        (Place("eval", "next", "--form"), "-1", False),
        (Place("train", "plan", "--set", "pretrain.z_loss", True), "NaN", True),
        (Place("train", "plan", "--set", "pretrain.z_loss", True), '"text"', True),
        (Place("train", "plan", "--set", "mesh", True), "-1", False),
    ],
)
def test_nonsense_is_distinguished_from_possible_values(place, value, nonsense):
    assert fuzz_commands.is_nonsense(place, value) == nonsense


def test_every_wrong_ending_of_a_command_is_found(ground, monkeypatch):
    place = Place("eval", "fit", "--level", numeric=True)

    def ends(main):
        monkeypatch.setattr(fuzz_commands.evaluation, "main", main)
        return fuzz_commands.run(place, "nan", ground, patience=0.2).kind

    def fails(arguments):
        raise KeyError("x")

    def hangs(arguments):
        while True:
            pass

    def mutters(arguments):
        print("\x1b[31merror", file=fuzz_commands.sys.stderr)
        return 2

    assert [ends(main) for main in (lambda arguments: 0, fails, hangs, mutters)] == [
        "nonsense",
        "traceback",
        "hang",
        "untidy",
    ]

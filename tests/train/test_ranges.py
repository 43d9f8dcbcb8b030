"""Settings are checked by their annotations: types, choices, ranges.

An error is one line that names the setting.
"""

import dataclasses
import math
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train import ranges
from train.ranges import Count, CountOrZero, Level, NotNegative, Positive, Range, Rate, Seed
from train.records import InputError


@dataclasses.dataclass
class Settings:
    count: Count = 1
    zero: CountOrZero = 0
    positive: Positive = 1.0
    share: Rate = 0.0
    level: Level = 0.95
    seed: Seed = 0
    name: Literal["a", "b"] = "a"
    several: tuple[NotNegative, ...] = ()
    pair: tuple[int, int] = (1, 2)
    price: NotNegative | None = None
    plain: float = 0.0
    flag: bool = False


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("count", 0, "count = 0 must be at least 1"),
        ("count", 2**60, "must be at least 1 and at most 9007199254740992"),
        ("count", 1.0, "count = 1.0 must be a whole number"),
        ("count", True, "count = True must be a whole number"),
        ("zero", -1, "zero = -1 must be at least 0"),
        ("positive", 0.0, "positive = 0.0 must be above 0 and finite"),
        ("positive", math.inf, "positive = inf must be above 0 and finite"),
        ("positive", math.nan, "positive = nan must be a number"),
        ("plain", math.nan, "plain = nan must be a number"),
        ("share", 1.0, "share = 1.0 must be at least 0 and below 1"),
        ("level", 95.0, "level = 95.0 must be above 0 and below 1"),
        ("seed", -1, "seed = -1 must be at least 0 and at most 4294967295"),
        ("seed", 2**32, "seed = 4294967296 must be at least 0 and at most 4294967295"),
        ("name", "c", "name = 'c' is not one of a, b"),
        ("several", (1.0, -1.0), "several[1] = -1.0 must be at least 0"),
        ("several", "12", "several = '12' must be a list"),
        ("pair", (1, 2, 3), "pair = [1, 2, 3] must have 2 values"),
        ("price", -1.0, "price = -1.0 must be at least 0"),
        ("flag", 1, "flag = 1 must be true or false"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(field, value, message):
    with pytest.raises(InputError) as error:
        ranges.check(Settings(**{field: value}))
    assert message in str(error.value)


def test_the_ends_that_belong_to_a_range_are_taken():
    ranges.check(
        Settings(
            count=2**53,
            zero=0,
            positive=1e300,
            share=0,
            seed=2**32 - 1,
            several=(0.0, 3),
            price=None,
        )
    )


@given(st.floats(), st.floats(-10, 10), st.floats(-10, 10), st.booleans(), st.booleans())
def test_a_range_holds_what_lies_between_its_ends(value, low, high, low_open, high_open):
    inside = (low < value or (value == low and not low_open)) and (
        value < high or (value == high and not high_open)
    )
    assert (value in Range(low, high, low_open, high_open)) == inside


def test_ranges_of_nested_annotations_all_count():
    @dataclasses.dataclass
    class Both:
        x: Annotated[Annotated[int, Range(0)], Range(high=5)] = 0

    for value in (-1, 6):
        with pytest.raises(InputError):
            ranges.check(Both(value))

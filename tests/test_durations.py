"""Which numbers of seconds are taken, and which are refused."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest

from isthmus.durations import checked_seconds

requirement = pytest.mark.requirement

HUGE = 10**400  # more than a float can hold


@requirement("6.2-timeout-values")
@pytest.mark.parametrize("given", [0, 0.0, 1, 0.25, Fraction(1, 4), 10**9])
def test_a_number_that_is_not_negative_is_taken(given: float) -> None:
    seconds = checked_seconds(given, "timeout")
    assert seconds == given and isinstance(seconds, float)


@requirement("6.2-timeout-values")
@pytest.mark.parametrize(
    "given", [None, math.inf, 1e300, HUGE], ids=["None", "inf", "1e300", "huge"]
)
def test_none_and_what_no_clock_will_see_set_no_bound(given: float | None) -> None:
    assert checked_seconds(given, "timeout") is None


@requirement("6.2-timeout-values")
@pytest.mark.parametrize("given", ["1", True, b"1", 1j, [1], Decimal(1), object])
def test_what_is_no_number_is_refused(given: object) -> None:
    with pytest.raises(TypeError, match="patience is a number of seconds or None, not "):
        checked_seconds(given, "patience")


@requirement("6.2-timeout-values")
@pytest.mark.parametrize(
    "given", [-1, -0.001, -math.inf, math.nan, -HUGE], ids=["-1", "-0.001", "-inf", "nan", "-huge"]
)
def test_negative_numbers_and_nan_are_refused(given: float) -> None:
    with pytest.raises(ValueError, match="patience is a number of seconds that is not negative"):
        checked_seconds(given, "patience")

"""When a curve first is at a level."""

import math

import pandas as pd
import pytest

from pipeline.studies._crossings import crossing


def _curve(*pairs):
    return pd.Series(dict(pairs), dtype=float)


def test_a_level_is_crossed_between_two_records():
    falling = _curve((0, 8.0), (10, 4.0), (20, 2.0), (30, 3.0))
    assert crossing(falling, 3.0, falling=True) == pytest.approx(15)
    assert crossing(falling, 3.0, falling=True, log=True) == pytest.approx(10 * 2**0.5)
    assert crossing(-falling, -3.0, falling=False) == pytest.approx(15)


def test_the_first_record_counts_and_nothing_is_between_zero_and_the_next_on_a_logarithm():
    curve = _curve((0, 8.0), (10, 4.0))
    assert crossing(curve, 9.0, falling=True) == 0
    assert crossing(curve, 6.0, falling=True) == 5 and crossing(curve, 6.0, falling=True, log=True) == 10


def test_what_is_never_reached_has_no_time_and_gaps_are_not_interpolated():
    assert math.isnan(crossing(_curve((0, 8.0), (10, 4.0)), 3.0, falling=True))
    assert math.isnan(crossing(pd.Series(dtype=float), 3.0, falling=True))
    assert crossing(_curve((0, 8.0), (10, math.nan), (20, 2.0)), 3.0, falling=True) == 20

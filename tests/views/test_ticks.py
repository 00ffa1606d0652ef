"""Logarithmic axes have at least two ticks, whatever they span, and labels that say exactly where they are."""

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from pipeline.views.ticks import log_ticks, ticked, written


def value(label: str) -> float:
    """What a label says."""
    power = re.fullmatch(r"\$(?:([-\d.]+)\\cdot )?10\^\{(-?\d+)\}\$", label)
    return float(f"{power[1] or 1}e{power[2]}") if power else float(label)


@settings(max_examples=300, deadline=None)
@given(st.floats(-30, 30), st.floats(1e-4, 60), st.integers(2, 6))
@example(0.0, 1e-4, 2)
@example(-2.0, 2.0, 3)
def test_there_are_at_least_two_ticks_within_the_limits_and_no_more_than_fit(start, decades, most):
    low, high = 10.0**start, 10.0 ** (start + decades)
    ticks = log_ticks(low, high, most)
    assert 2 <= len(ticks) <= most and ticks == sorted(set(ticks))
    assert low * (1 - 1e-8) <= ticks[0] and ticks[-1] <= high * (1 + 1e-8)
    labels = written(ticks)
    assert len(set(labels)) == len(labels)
    assert all(abs(value(label) - tick) <= 1e-9 * tick for label, tick in zip(labels, ticks, strict=True))


def test_many_decades_have_powers_and_few_have_numbers():
    assert written(log_ticks(1, 1e5, 3)) == ["$10^{0}$", "$10^{2}$", "$10^{4}$"]
    assert written(log_ticks(0.13, 1.1, 4)) == ["0.2", "0.5", "1"]
    assert written(log_ticks(0.984, 0.989, 3)) != []


def test_an_axis_takes_as_many_as_it_has_room_for():
    figure = Figure(figsize=(2, 6))
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlim=(1, 1e8), ylim=(1, 1e8))
    for axis in (axes.xaxis, axes.yaxis):
        ticked(axis, 8.0)
    assert 2 <= len(axes.xaxis.get_majorticklocs()) < len(axes.yaxis.get_majorticklocs()) <= 6

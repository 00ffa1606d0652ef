"""Ticks of logarithmic axes: few, easy to read, and at least two of them, whatever the axis spans.

matplotlib's own leave an axis of less than a decade without any, or with one.
"""

import math
from collections.abc import Sequence

from matplotlib.axis import Axis
from matplotlib.ticker import Formatter, Locator, MaxNLocator, NullLocator

MANTISSAS = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7))
"""Tried in this order where there are too few powers of ten."""
PLAIN = 1e-3, 1e4, 1e7
"""Between the first two, numbers are written out, and up to the third if they lie within a decade."""
EXACT = 1e-12
"""Relative: by what a label may be off its tick."""
TOLERANCE = 1e-9
"""Relative: a limit that is a tick but for rounding has it."""


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At least two ticks in [low, high], 0 < low < high, and at most ``most`` of them (which is at least 2)."""
    powers = _powers(low, high)
    if len(powers) >= 2:
        for stride in range(1, len(powers)):
            chosen = [power for power in powers if power % stride == 0]
            if len(chosen) < 2:
                chosen = powers[::stride]
            if len(chosen) <= most:
                return [10.0**power for power in chosen]
        return [10.0 ** powers[0], 10.0 ** powers[-1]]
    for mantissas in MANTISSAS:
        found = _multiples(low, high, mantissas)
        if 2 <= len(found) <= most:
            return found
    for steps in range(most, 60):
        found = [float(tick) for tick in MaxNLocator(steps).tick_values(low, high) if _within(tick, low, high)]
        if len(found) >= 2:
            return found if len(found) <= most else [found[0], found[-1]]
    return [low, high]


def _within(value: float, low: float, high: float) -> bool:
    return low * (1 - TOLERANCE) <= value <= high * (1 + TOLERANCE)


def _powers(low: float, high: float) -> list[int]:
    return list(range(math.ceil(math.log10(low) - TOLERANCE), math.floor(math.log10(high) + TOLERANCE) + 1))


def _multiples(low: float, high: float, mantissas: Sequence[float]) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    found = (float(f"{mantissa}e{decade}") for decade in decades for mantissa in mantissas)
    return [value for value in found if _within(value, low, high)]


def written(ticks: Sequence[float]) -> list[str]:
    """The labels of such ticks, with all of their digits: powers of ten where numbers written out would be long."""
    low, high = min(ticks), max(ticks)
    plain = low >= PLAIN[0] and (high < PLAIN[1] or high < min(10 * low, PLAIN[2]))
    for digits in range(1, 16):
        labels = [f"{float(f'{tick:.{digits}g}'):.15g}" if plain else _power(tick, digits) for tick in ticks]
        if all(abs(float(f"{tick:.{digits}g}") - tick) <= EXACT * tick for tick in ticks):
            break
    return labels


def _power(tick: float, digits: int) -> str:
    mantissa, _, decade = f"{tick:.{digits - 1}e}".partition("e")
    mantissa = f"{float(mantissa):g}" if digits < 7 else mantissa
    return f"$10^{{{int(decade)}}}$" if mantissa == "1" else rf"${mantissa}\cdot 10^{{{int(decade)}}}$"


class LogTicks(Locator):
    """As many of `log_ticks` as the axis has room for."""

    def __init__(self, text: float, along: str) -> None:
        """Text is in points; ``along``: x, where labels stand beside one another, or y."""
        self._room = text * (3.4 if along == "x" else 2.2)
        self._along = along

    def __call__(self) -> list[float]:
        """The ticks within the view."""
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """The ticks within these limits."""
        low, high = sorted((vmin, vmax))
        if not 0 < low < high:
            return []
        box = self.axis.axes.bbox
        points = 72 / self.axis.get_figure(root=True).dpi * (box.width if self._along == "x" else box.height)
        return log_ticks(low, high, max(2, min(6, int(points / self._room))))


class LogLabels(Formatter):
    """Writes `LogTicks`."""

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The labels of all ticks of an axis."""
        return written([float(value) for value in values]) if len(values) else []

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of one tick."""
        return written([float(x)])[0]


def ticked(axis: Axis, text: float) -> None:
    """Give a logarithmic axis these ticks and no small ones: drawing hundreds of them takes most of a figure's time."""
    axis.set_major_locator(LogTicks(text, axis.axis_name))
    axis.set_major_formatter(LogLabels())
    axis.set_minor_locator(NullLocator())

"""What families of metrics keep in memory while layers are measured, known before a run begins."""

import math
from collections.abc import Mapping, Sequence

from pipeline.measure.extraction import Place
from pipeline.measure.looks import pairs_of
from pipeline.metrics import registry
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import MeasureSettings

NUMBER = 8
"""Bytes of a float64."""


def family_bytes(
    widths: Mapping[Place, int],
    num_classes: int,
    settings: MeasureSettings,
    groups: int = 0,
    rows: int = 0,
    stacks: Sequence[tuple[int, int]] = (),
    path: int = 0,
) -> dict[str, int]:
    """Bytes of state of each family that is chosen, in all places of one split.

    What several families take, such as the pooled scatter, counts with the first of them.

    Args:
        widths: d of every place.
        groups: how many there are.
        rows: how many of the split, with foreign ones: the family "foreign" keeps a number of each.
        stacks: number and width of the blocks of each row, whose Jacobians and their decompositions are kept.
        path: bytes of the path through a leaky network.
    """
    known, chosen = registry.families(), settings.families
    names = list(known) if registry.ALL in chosen else [name for name in known if name in chosen]
    costs, counted = {}, set()
    for name in names:
        plan = Plan(tuple(registry.metrics()[metric] for metric in known[name].metrics), settings=settings)
        total = 2 * num_classes * sum(widths.values()) if name == registry.CORE else 0
        total += 2 * num_classes * sum(widths.values()) * len(set(plan.views) - counted)
        for it in (it for it in plan.statistics if it.name not in counted):
            total += sum(math.prod(it.shape(num_classes, width)) for width in widths.values())
        counted |= {*plan.views, *(it.name for it in plan.statistics)}
        if plan.takes("groups"):
            total += 2 * num_classes * groups * sum(widths.values())
        if plan.takes("pair"):
            total += sum(_of_pair(widths[one], widths[other]) for one, other in pairs_of(list(widths), settings))
        total += rows * len(plan.row_values) * len(widths)
        if plan.takes("jacobians"):
            total += 3 * settings.jacobian_samples * sum(depth * width**2 for depth, width in stacks)
        costs[name] = NUMBER * total + (path if plan.takes("leaky") else 0)
    return costs


def _of_pair(first: int, second: int) -> int:
    return first * second + first**2 + second**2


def in_words(costs: Mapping[str, int], places: int) -> str:
    """The costs as one line."""
    told = [f"{name} {_sized(size)}" for name, size in costs.items() if size]
    return f"state of {places} places in each split: {', '.join(told)}"


def _sized(size: int) -> str:
    units: Sequence[str] = ("B", "KiB", "MiB", "GiB")
    power = min(len(units) - 1, max(0, size.bit_length() - 1) // 10)
    return f"{size / 1024**power:.3g} {units[power]}"

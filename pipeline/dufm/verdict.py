"""Whether and where collapse emerged: thresholds applied to the final state of every layer.

What collapse is, and in which places it is promised, the objective of the head says (`pipeline.dufm.objectives`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.dufm.objectives import Objective, load_objective

METRICS = ("dnc1", "dnc2", "dnc3")


def theorem_speaks_of(layer: int, tap: str, metric: str) -> bool:
    """Whether the theorem on mean squared error promises ``metric`` at this place of a head of depth >= 2."""
    return promises(load_objective("mse"), layer, tap, metric, depth=max(layer, 2))


def promises(objective: Objective, layer: int, tap: str, metric: str, depth: int) -> bool:
    """Whether the collapsed state of a head of this depth has ``metric`` at its ideal value at this place."""
    return any(promise.metric == metric and promise.where(layer, tap, depth) for promise in objective.collapse)


def judge(
    objective: Objective,
    head_layers: Sequence[Mapping[str, Any]],
    backbone_layers: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float],
    theorem: str | None,
    unpromised: str | None = None,
) -> dict[str, Any]:
    """The verdict on one run.

    A property holds in a layer when it holds for every seed. ``value`` is the median over seeds; a seed whose value is
    undefined counts as not collapsed.

    Args:
        objective: of the head.
        head_layers: ``{layer, tap, dnc1: [per seed] | None, ...}`` in order (as in ``summary.json``), the last layer of
            the head among them.
        backbone_layers: the same for named blocks.
        thresholds: largest value that counts as collapsed, for each metric to judge.
        theorem: why the theorem does not cover this run, or None when it does.
        unpromised: why no theorem promises collapse to the optima of such a head, even with free features; None when
            one does.

    Returns:
        ``layers`` (one entry per place: layer, tap, and per metric ``{value, collapsed, seeds_collapsed, counts,
        theorem}``: whether collapse has the property there, and whether a theorem promises it at the optimum),
        ``collapsed`` (everything that counts holds), ``collapsed_from_layer`` (the first head layer
        from which on it does; None if not even the last), ``holds_from_layer`` (the same for each property of
        collapse), ``theorem_applies``, ``theorem_reason``, ``text``.
    """
    properties = [promise.metric for promise in objective.collapse]
    head = _judged_head(objective, head_layers, thresholds, promised=unpromised is None)
    first = _collapsed_from(head, properties)
    each = {metric: _collapsed_from(head, [metric]) for metric in properties}
    return {
        "thresholds": dict(thresholds),
        "layers": [_place(entry, "backbone", thresholds) for entry in backbone_layers] + head,
        "collapsed": first == 1,
        "collapsed_from_layer": first,
        "holds_from_layer": each,
        "theorem_applies": theorem is None,
        "theorem_reason": theorem,
        "text": _text(first, each, _depth(head_layers)),
    }


def notes(objectives: Sequence[Objective], num_classes: int, class_sizes: Sequence[int]) -> list[str]:
    """What to mind when the verdict is read: ideal values out of reach under these objectives, sizes of classes."""
    found = [objective.unreachable(num_classes) for objective in objectives]
    sizes = [size for size in class_sizes if size]
    if sizes and max(sizes) > 2 * min(sizes):
        found.append(
            f"the largest class has {max(sizes) / min(sizes):.3g} times the samples of the smallest: dnc1 moves with "
            "the sizes alone, dnc1_balanced does not"
        )
    return list(dict.fromkeys(note for note in found if note))


def all_collapsed(
    objective: Objective,
    head_layers: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float],
    first_layer: int,
) -> bool:
    """Whether everything promised holds in every head layer from ``first_layer`` on (arguments as of `judge`)."""
    head = _judged_head(objective, head_layers, thresholds)
    first = _collapsed_from(head, [promise.metric for promise in objective.collapse])
    return first is not None and first <= first_layer


def features_collapsed(objective: Objective, features: Mapping[str, Any], thresholds: Mapping[str, float]) -> bool:
    """Whether features that enter a linear classifier have what is promised of them (an entry as of `judge`).

    What is promised of the classifier's weight does not count: it is not measured.
    """
    place = _place(dict(features) | {"layer": 1, "tap": "pre"}, "head", thresholds, objective, depth=1)
    promised = [place[promise.metric] for promise in objective.collapse if place.get(promise.metric)]
    return bool(promised) and all(judged["collapsed"] for judged in promised if judged["counts"])


def _depth(head_layers: Sequence[Mapping[str, Any]]) -> int:
    return max((entry["layer"] for entry in head_layers), default=0)


def _judged_head(
    objective: Objective,
    head_layers: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float],
    promised: bool = True,
) -> list[dict[str, Any]]:
    depth = _depth(head_layers)
    return [_place(entry, "head", thresholds, objective, depth, promised) for entry in head_layers]


def _place(
    entry: Mapping[str, Any],
    stage: str,
    thresholds: Mapping[str, float],
    objective: Objective | None = None,
    depth: int = 0,
    promised: bool = True,
) -> dict[str, Any]:
    """One place judged; without an objective nothing counts, and nothing is promised."""
    place: dict[str, Any] = {"stage": stage, "layer": entry["layer"], "tap": entry["tap"]}
    for metric, threshold in thresholds.items():
        values = entry.get(metric)
        if values is None:
            place[metric] = None
            continue
        counts = objective is not None and promises(objective, entry["layer"], entry["tap"], metric, depth)
        passed = [value is not None and value <= threshold for value in values]
        place[metric] = {
            "value": _median([value for value in values if value is not None]),
            "collapsed": all(passed),
            "seeds_collapsed": sum(passed),
            "counts": counts,
            "theorem": counts and promised,
        }
    return place


def _collapsed_from(head: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> int | None:
    """First layer from which on everything promised about ``metrics`` holds; layers without a promise are neutral."""
    first = None
    for layer in sorted({place["layer"] for place in head}, reverse=True):
        places = [place for place in head if place["layer"] == layer]
        promised = [place[m] for place in places for m in metrics if place.get(m) and place[m]["counts"]]
        if not all(judged["collapsed"] for judged in promised):
            break
        first = layer if promised else first
    return first


def _median(values: list[float]) -> float | None:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return None
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _text(first: int | None, each: Mapping[str, int | None], last: int) -> str:
    if first == 1:
        return f"deep neural collapse in every layer of the head (1..{last})"
    if first is not None and first < last:
        return f"deep neural collapse from layer {first} of the head on ({first}..{last})"
    if first == last:
        return f"deep neural collapse in the last layer of the head only ({last})"
    parts = [
        f"{metric.upper()} "
        + ("nowhere" if layer is None else f"in layers {layer}..{last}" if layer < last else f"in layer {last}")
        for metric, layer in each.items()
    ]
    return "no deep neural collapse: " + ", ".join(parts)

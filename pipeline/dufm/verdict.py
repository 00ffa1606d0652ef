"""Whether and where collapse emerged: thresholds applied to the final state of every layer.

For K = 2, L >= 2, free inputs and balanced classes every global optimum has (Súkeník et al. 2023, arXiv 2305.13165,
main theorem): DNC1 in all layers before and after the ReLU; DNC2 after the ReLU for layers l >= 2 and before it for
l >= 3; DNC3 of W_l for l >= 2. It promises nothing else, so nothing else counts against a run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

METRICS = ("dnc1", "dnc2", "dnc3")


def theorem_speaks_of(layer: int, tap: str, metric: str) -> bool:
    """Whether the theorem promises ``metric`` at this place of a head of depth >= 2."""
    if metric == "dnc1":
        return True
    if metric == "dnc2":
        return layer >= 3 or (layer == 2 and tap == "post")
    return layer >= 2 and tap == "post"


def judge(
    head_layers: Sequence[Mapping[str, Any]],
    backbone_layers: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, float],
    theorem: str | None,
) -> dict[str, Any]:
    """The verdict on one run.

    A property holds in a layer when it holds for every seed. ``value`` is the median over seeds; a seed whose value is
    undefined counts as not collapsed.

    Args:
        head_layers: ``{layer, tap, dnc1: [per seed] | None, ...}`` in order (as in ``summary.json``).
        backbone_layers: the same for named blocks.
        thresholds: largest value of dnc1, dnc2, dnc3 that counts as collapsed.
        theorem: why the theorem does not cover this run, or None when it does.

    Returns:
        ``layers`` (one entry per place: layer, tap, and per metric ``{value, collapsed, seeds_collapsed, theorem}``),
        ``collapsed`` (everything the theorem would speak of holds), ``collapsed_from_layer`` (the first head layer
        from which on it does; None if not even the last), ``holds_from_layer`` (the same for each metric),
        ``theorem_applies``, ``theorem_reason``, ``text``.
    """
    layers = [_place(entry, thresholds, stage="backbone") for entry in backbone_layers]
    head = [_place(entry, thresholds, stage="head") for entry in head_layers]
    first = _collapsed_from(head, METRICS)
    each = {metric: _collapsed_from(head, (metric,)) for metric in METRICS}
    last = max((place["layer"] for place in head), default=0)
    text = _text(first, each, last)
    return {
        "thresholds": dict(thresholds),
        "layers": layers + head,
        "collapsed": first == 1,
        "collapsed_from_layer": first,
        "holds_from_layer": each,
        "theorem_applies": theorem is None,
        "theorem_reason": theorem,
        "text": text,
    }


def all_collapsed(head_layers: Sequence[Mapping[str, Any]], thresholds: Mapping[str, float], first_layer: int) -> bool:
    """Whether everything promised holds in every head layer from ``first_layer`` on (arguments as of `judge`)."""
    first = _collapsed_from([_place(entry, thresholds, stage="head") for entry in head_layers], METRICS)
    return first is not None and first <= first_layer


def _place(entry: Mapping[str, Any], thresholds: Mapping[str, float], stage: str) -> dict[str, Any]:
    place: dict[str, Any] = {"stage": stage, "layer": entry["layer"], "tap": entry["tap"]}
    for metric in METRICS:
        values = entry.get(metric)
        if values is None:
            place[metric] = None
            continue
        passed = [value is not None and value <= thresholds[metric] for value in values]
        place[metric] = {
            "value": _median([value for value in values if value is not None]),
            "collapsed": all(passed),
            "seeds_collapsed": sum(passed),
            "theorem": stage == "head" and theorem_speaks_of(entry["layer"], entry["tap"], metric),
        }
    return place


def _collapsed_from(head: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> int | None:
    """First layer from which on everything promised about ``metrics`` holds; layers without a promise are neutral."""
    first = None
    for layer in sorted({place["layer"] for place in head}, reverse=True):
        places = [place for place in head if place["layer"] == layer]
        promised = [place[m] for place in places for m in metrics if place[m] and place[m]["theorem"]]
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

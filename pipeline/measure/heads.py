"""Layer-wise measuring of a batch of heads from its tensors; see `pipeline.measure.layers`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline import dufm
from pipeline.measure.joining import joined
from pipeline.measure.layers import LayerMeasurement
from pipeline.metrics import ClassStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import DEFAULT, MeasureSettings
from pipeline.metrics.registry import BEYOND_A_LAYER, TEST
from pipeline.runtime import ranks
from pipeline.runtime.devices import moved


@torch.no_grad()
def measure_head(
    features: Tensor,
    weights: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    activation: str,
    test: tuple[Tensor, Tensor] | None = None,
    computed_in: torch.dtype | None = None,
    settings: MeasureSettings = DEFAULT,
    *,
    bias: Tensor | None = None,
    classifies: bool = True,
    shared_out: bool = False,
) -> Iterator[LayerMeasurement]:
    """Metrics of every layer of S heads at once, layer by layer.

    The metrics of W_l (dnc3, ranks, its balancedness with W_{l+1}, NC3 duality of W_L) stand with what enters W_l:
    ``pre`` for l = 1, ``post`` after.

    Args:
        features: ``(N, d_1)`` or ``(S, N, d_1)``; weights: W_l ``(S, d_{l+1}, d_l)``; labels: ``(N,)``.
        test: features ``(M, d_1)`` and labels ``(M,)`` of the test split, to be measured too.
        computed_in: the dtype that the features were computed in, by default their own. Means that are dependent up to
            its rounding stay so in the layers after, so it counts in all of them.
        settings: as of `measure_backbone`.
        bias: of the last layer, ``(S, K)``.
        classifies: whether the largest output is a decision between the classes; if not, metrics of decisions are left
            out.
        shared_out: features, test features and labels are those of this rank alone; then collective.
    """
    splits = [(features, labels)] + ([] if test is None else [test])
    taps = [dufm.layer_taps(inputs, weights, activation) for inputs, _ in splits]
    decisions: list[Tensor | None] = [None] * len(splits)
    if classifies:
        decisions = [dufm.forward(inputs, weights, activation, bias)[-1].argmax(dim=-1) for inputs, _ in splits]
    plan = Plan.full((*BEYOND_A_LAYER, *(() if classifies else ("decisions",))), settings, each_class=True)
    members = dufm.num_members(features, weights)
    matrices = moved(list(weights), "cpu")  # as formulas take them
    of_all, total = (_of_all_ranks, _total) if shared_out else (lambda own: own, None)
    for (layer, tap, tensor), *others in zip(*taps, strict=True):
        entered = layer == 1 or tap == "post"
        weight = matrices[layer - 1] if entered and weights else None
        following = matrices[layer] if entered and layer < len(weights) else None
        statistics = of_all(plan.first_look(tensor.expand(members, -1, -1), labels, num_classes, computed_in))
        ends = activation == "linear" and layer + 1 == len(weights)
        more = {} if ends else {"last_weight": None}
        values, reasons = plan.at_once(statistics, None, weight, following, decisions[0], more, total)
        for (_, _, other), (_, other_labels), decided in zip(others, splits[1:], decisions[1:], strict=True):
            rows = other.expand(members, -1, -1)
            found = of_all(plan.of_rows.first_look(rows, other_labels, num_classes, computed_in))
            own, why = plan.of_rows.at_once(found, statistics, weight, following, decided, more, total)
            values |= {f"{TEST}{name}": value for name, value in own.items()}
            reasons |= {f"{TEST}{name}": reason for name, reason in why.items()}
        yield LayerMeasurement(str(layer), tap, values, reasons)


def _of_all_ranks(own: ClassStatistics) -> ClassStatistics:
    """Those of all ranks' rows, with this rank's as the `source`."""
    (found,) = joined({("head",): moved(replace(own, source=None), "cpu")}).values()
    return replace(moved(found, own.counts.device), source=own.source)


def _total(numbers: Tensor) -> Tensor:
    """Of all ranks."""
    return ranks.total(numbers.cpu().clone()).to(numbers.device)

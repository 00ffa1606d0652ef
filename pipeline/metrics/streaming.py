"""Collapse metrics of one layer from a stream of batches, in one pass and on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from pipeline.metrics.checks import check_label_range, check_labels, check_matrix, check_num_classes
from pipeline.metrics.functional import FEATURE_FORMULAS
from pipeline.metrics.statistics import ClassStatistics
from pipeline.metrics.undefined import reason_of


class CollapseMetrics(Metric):
    """All collapse metrics of a layer's features, streamed: equal to `layer_metrics` of all the data at once.

    Call it with features `(N, d)` of any float dtype and int64 labels `(N,)`, in batches of any size, on any number of
    ranks; `compute()` gives dnc1, nc1_pinv, cdnv, dnc2, nc2_frame, nc2_simplex, rank_means, stable_rank_means and
    active_units as float64 scalars. Merging batches and ranks is exact to rounding, however large the offset of the
    features or small their spread (see `statistics`).

    The state is one float64 vector, of size O(K d) or, with `covariance`, O(K d + d^2); it stays float64 when the
    metric, or a model that holds it, is cast. `update` never waits for a GPU; labels out of range raise ValueError at
    once on a CPU and in `compute()` on a GPU.

    Args:
        num_classes: K, at least 2.
        num_features: d, at least 1.
        covariance: accumulate the pooled `(d, d)` scatter that nc1_pinv needs; False drops nc1_pinv.
        kwargs: those of `torchmetrics.Metric`.

    Attributes:
        undefined: reasons for the metrics that were not finite in the last `compute()`, by name.

    Raises:
        ValueError: for arguments out of range and malformed features or labels.
    """

    is_differentiable: ClassVar[bool] = False
    higher_is_better: ClassVar[None] = None
    full_state_update: ClassVar[bool] = False

    state: Tensor

    def __init__(self, num_classes: int, num_features: int, covariance: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_num_classes(num_classes)
        if isinstance(num_features, bool) or not isinstance(num_features, int) or num_features < 1:
            raise ValueError(f"num_features must be an int of at least 1, got {num_features!r}.")
        self.num_classes = num_classes
        self.num_features = num_features
        self.covariance = covariance
        self.undefined: dict[str, str] = {}
        sizes = (num_classes, num_features, covariance)
        size = sum(shape.numel() for shape in _shapes(*sizes).values())
        # One state, so that the means, about which scatter is taken, are merged in the same step as the scatter.
        self.add_state("state", torch.zeros(size, dtype=torch.float64), dist_reduce_fx=partial(_merge_states, *sizes))

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features `(N, d)` and labels `(N,)`; N may be 0."""
        check_matrix("features", features, "(N, d)")
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(f"features must have shape (N, {self.num_features}), got {tuple(features.shape)}.")
        check_labels(labels, features)
        if labels.device.type == "cpu":
            check_label_range(labels, self.num_classes)
        batch = ClassStatistics.from_features(features, labels, self.num_classes, covariance=self.covariance)
        self.state = _pack(ClassStatistics.merged([self.statistics, batch]))

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name, float64 scalars on the metric's device."""
        statistics = self.statistics
        strays = int(statistics.samples - statistics.counts.sum())
        if strays:
            raise ValueError(f"labels must lie in 0..{self.num_classes - 1}, got {strays} of them outside.")
        formulas = {name: f for name, f in FEATURE_FORMULAS.items() if self.covariance or name != "nc1_pinv"}
        values = {name: formula(statistics) for name, formula in formulas.items()}
        self.undefined = {}
        if not torch.stack(list(values.values())).isfinite().all():
            reasons = {name: reason_of(formula, statistics) for name, formula in formulas.items()}
            self.undefined = {name: reason for name, reason in reasons.items() if reason is not None}
        return values

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add what another metric of the same sizes has seen, e.g. of another shard of the data."""
        if isinstance(incoming_state, CollapseMetrics):
            ours = (self.num_classes, self.num_features, self.covariance)
            theirs = (incoming_state.num_classes, incoming_state.num_features, incoming_state.covariance)
            if ours != theirs:
                raise ValueError(
                    f"incoming_state must have the same (num_classes, num_features, covariance), {ours}, got {theirs}."
                )
        super().merge_state(incoming_state)
        # The base class keeps a value computed before, and warns that a metric filled by merging alone is empty.
        self._computed = None
        self._update_count += 1

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.undefined = {}

    def set_dtype(self, dst_type: str | torch.dtype) -> CollapseMetrics:
        """Keep float64, whatever is asked for: less would cost the digits that collapse is about."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> CollapseMetrics:
        # Follow a move to another device, but not a cast: `.to(torch.float16)` of a model that holds the metric.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), *args, **kwargs)

    @property
    def statistics(self) -> ClassStatistics:
        """What was accumulated so far on this rank."""
        return _unpack(self.num_classes, self.num_features, self.covariance, self.state)


def _shapes(num_classes: int, num_features: int, covariance: bool) -> dict[str, torch.Size]:
    """Shapes of the tensors that make up the state vector, by their name in `ClassStatistics`, in order."""
    shapes = {
        "counts": (num_classes,),
        "anchors": (num_classes, num_features),
        "drifts": (num_classes, num_features),
        "scatter": (num_classes,),
        "active": (),
        "samples": (),
    }
    if covariance:
        shapes["pooled"] = (num_features, num_features)
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def _pack(statistics: ClassStatistics) -> Tensor:
    names = _shapes(0, 0, statistics.pooled is not None)
    return torch.cat([getattr(statistics, name).reshape(-1) for name in names])


def _unpack(num_classes: int, num_features: int, covariance: bool, state: Tensor) -> ClassStatistics:
    shapes = _shapes(num_classes, num_features, covariance)
    pieces = state.split([shape.numel() for shape in shapes.values()])
    return ClassStatistics(**{name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)})


def _merge_states(num_classes: int, num_features: int, covariance: bool, states: Tensor) -> Tensor:
    """The state of all parts from their states `(R, size)`, as torchmetrics stacks them."""
    return _pack(ClassStatistics.merged([_unpack(num_classes, num_features, covariance, state) for state in states]))

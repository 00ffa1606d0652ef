"""All families of metrics of one layer whose rows are at hand: what `layer_metrics` is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.metrics import registry
from pipeline.metrics.engine.checks import (
    check_decisions,
    check_features,
    check_groups,
    check_label_range,
    check_labels,
    check_matrix,
    check_next_weight,
    check_weight,
)
from pipeline.metrics.engine.pairing import PairStatistics
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import MeasureSettings, listed
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.runtime.devices import with_float64

Found = tuple[dict[str, Tensor], dict[str, str]]
"""Values, and why some of them are not finite."""


@dataclass(frozen=True)
class Given:
    """What `layer_metrics` may be given besides rows and labels."""

    weight: Tensor | None = None
    next_weight: Tensor | None = None
    decisions: Tensor | None = None
    reference: ClassStatistics | None = None
    nearest: bool = False
    groups: Tensor | None = None
    foreign: Tensor | None = None
    previous: Tensor | None = None
    gradients: Tensor | None = None
    given: Tensor | None = None

    def check(self, features: Tensor, num_classes: int) -> None:
        """Raise ValueError for what does not fit."""
        if self.next_weight is not None and self.weight is None:
            raise ValueError("next_weight needs the weight that comes before it, got weight = None.")
        if self.weight is not None:
            check_weight(self.weight, features)
        if self.next_weight is not None:
            check_next_weight(self.next_weight, self.weight)
        if self.decisions is not None:
            check_decisions(self.decisions, features)
        if self.groups is not None:
            check_groups(self.groups, features)
        if self.given is not None:
            check_labels(self.given, features)
            check_label_range(self.given, num_classes)
        for name, rows in (("foreign", self.foreign), ("previous", self.previous)):
            if rows is not None:
                check_matrix(name, rows, "(N, d)")
        self._check_sizes(features)

    def _check_sizes(self, features: Tensor) -> None:
        if self.foreign is not None and self.foreign.shape[-1] != features.shape[-1]:
            raise ValueError(
                f"foreign must have {features.shape[-1]} columns, as the features, got {tuple(self.foreign.shape)}."
            )
        if self.previous is not None and self.previous.shape[-2] != features.shape[-2]:
            raise ValueError(
                f"previous must have {features.shape[-2]} rows, as the features, got {tuple(self.previous.shape)}."
            )
        if self.gradients is None:
            return
        check_matrix("gradients", self.gradients, "(out, out)")
        if self.weight is None or self.gradients.shape[-2:] != (self.weight.shape[-2],) * 2:
            out = "the weight that they are of" if self.weight is None else f"shape {(self.weight.shape[-2],) * 2}"
            raise ValueError(f"gradients need {out}, got {tuple(self.gradients.shape)}.")

    @property
    def lacking(self) -> list[str]:
        """What metrics may take and is not there."""
        there = {
            "nearest": self.nearest,
            "decisions": self.decisions is not None,
            "groups": self.groups is not None,
            "foreign": self.foreign is not None,
            "pair": self.previous is not None,
            "gradients": self.gradients is not None,
            **dict.fromkeys(registry.OF_NETWORKS, False),
            **dict.fromkeys(registry.OF_WEIGHTS, self.weight is not None),
        }
        return [name for name, given in there.items() if not given]


def settings_of(families: Sequence[str], *others: object) -> MeasureSettings:
    """Settings of families, smallest and largest size of a class, the probe's penalty, and foreign directions."""
    min_samples, max_samples, probe_ridge, foreign_directions = others
    return MeasureSettings(
        listed(families),
        min_samples,
        max_samples,
        probe_ridge=probe_ridge,
        foreign_directions=foreign_directions,
    )


def measured(features: Tensor, labels: Tensor, num_classes: int, given: Given, settings: MeasureSettings) -> Found:
    """All metrics that can be had, and why some of them are not finite."""
    check_features(features, labels, num_classes)
    given.check(features, num_classes)
    given = Given(*(with_float64(it)[0] if isinstance(it, Tensor) else it for it in vars(given).values()))
    plan = Plan.full(given.lacking, settings, strict=True)
    features, labels = with_float64(features, labels)
    statistics = plan.first_look(features, labels, num_classes)
    more: dict[str, object] = {"gradients": _double(given.gradients)}
    if given.foreign is not None:
        nobody = torch.zeros(given.foreign.shape[-2], dtype=torch.int64, device=features.device)
        more["foreign"] = ClassStatistics.from_features(given.foreign, nobody, num_classes)
    if given.previous is not None and plan.takes("pair"):
        more["pair"] = PairStatistics.of_rows(given.previous, features)
    parts = _parts(features, labels, given) if plan.of_parts is not None else {}
    own = {name: plan.of_parts.first_look(rows, beside, num_classes) for name, (rows, beside, _) in parts.items()}
    more["groups"] = [found for name, found in own.items() if name.startswith(registry.GROUP)]
    values, reasons = plan.at_once(statistics, given.reference, given.weight, given.next_weight, given.decisions, more)
    for name, (_, _, decided) in parts.items():
        found, why = plan.of_parts.at_once(own[name], None, given.weight, given.next_weight, decided)
        values |= {f"{metric}{name}": value for metric, value in found.items()}
        reasons |= {f"{metric}{name}": reason for metric, reason in why.items()}
    return values, reasons


def _parts(features: Tensor, labels: Tensor, given: Given) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
    """Rows, labels and decisions of every group, and all by the labels that were given, by suffix."""
    found: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
    if given.groups is not None:
        for group in range(int(given.groups.max()) + 1 if len(given.groups) else 0):
            rows = (given.groups == group).nonzero().squeeze(-1)
            decided = None if given.decisions is None else given.decisions.index_select(-1, rows)
            found[f"{registry.GROUP}{group}"] = features.index_select(-2, rows), labels[rows], decided
    if given.given is not None:
        found[registry.GIVEN] = features, given.given, given.decisions
    return found


def _double(matrix: Tensor | None) -> Tensor | None:
    return None if matrix is None else matrix.detach().cpu().to(torch.float64)

"""The networks of the study `regression`: fitted to numbers of images, with and without decay."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.metrics import nrc3
from pipeline.studies._family import every, reference, weights
from pipeline.studies._family_networks import MLP, MNIST, network_points
from pipeline.studies._networks_drawing import count_of_networks, record_of
from pipeline.studies._settings import DECAY_TIMES, decay_times
from pipeline.studies.engine.claims import LATER, THEOREM, Claim, owned, spread
from pipeline.studies.engine.results import Result
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD = ("head=linear", "head.depth=1", "head.bias=last")
STATISTICS, TEACHER = "protocol.targets=statistics", "protocol.targets=teacher"
WIDE = (MLP, "backbone.hidden=[256,256,256,256]")
UFM = ("backbone.linear_tail=1", "head.weight_decay=1e-2", "head.feature_decay=2e-6")
"""The paper's lambda_W = .01 and lambda_H = .1, which is over the number of images here; no ReLU at the end."""


def _decayed(decay: float) -> tuple[str, ...]:
    return ("protocol.regularization=standard", f"optimizer.weight_decay={decay:g}")


DECAYS = {"none": 0.0, "weak": 1e-4, "middle": 1e-3, "strong": 1e-2}
NETWORKS = {
    **{f"mlp_mnist_{name}": (MNIST, *WIDE, *HEAD, STATISTICS, *_decayed(decay)) for name, decay in DECAYS.items()},
    "mlp_mnist_ufm": (MNIST, *WIDE, *HEAD, STATISTICS, *UFM),
    "mlp_mnist_teacher": (MNIST, *WIDE, *HEAD, TEACHER, *UFM),
    "mlp_cifar10_none": (*WIDE, *HEAD, STATISTICS, *_decayed(0.0)),
    "mlp_cifar10_ufm": (*WIDE, *HEAD, STATISTICS, *UFM),
    "resnet20_cifar10_strong": ("backbone=resnet20", *HEAD, STATISTICS, *_decayed(1e-2)),
}
TRAINED = network_points(NETWORKS)
NAMES = {
    **{f"mlp_mnist_{name}": f"MNIST, decay {decay:g}" for name, decay in DECAYS.items()},
    "mlp_mnist_ufm": "MNIST, UFM penalties",
    "mlp_mnist_teacher": "MNIST, a teacher's outputs, UFM penalties",
    "mlp_cifar10_none": "CIFAR-10, decay 0",
    "mlp_cifar10_ufm": "CIFAR-10, UFM penalties",
    "resnet20_cifar10_strong": "ResNet-20, CIFAR-10, decay 0.01",
}
SIZE = ("data.samples_per_class=200", "backbone.batch_size=50", "backbone.epochs=200")
CPU_SIZES = {
    kind: (*SIZE, "head.feature_decay=5e-5") if kind.endswith(("ufm", "teacher")) else SIZE
    for kind in NETWORKS
    if kind not in ("mlp_mnist_weak", "resnet20_cifar10_strong")
}
METRICS = {"nrc1": "NRC1", "nrc2": "NRC2", "nrc3": r"NRC3 at its best $\gamma$"}
FREE, COLLAPSED, FITTED, NEAR = 1e-1, 1e-2, 0.9, 0.1
"""NRC1 without decay; NRC1-3 of what has collapsed; R^2 from which on a network fits; gap of a loss (ours)."""


def curve(result: Result, metric: str) -> pd.Series:
    """A number of the head by epoch."""
    record = result.record
    rows = record[(record.stage == "head") & (record.metric == metric)].sort_values("step")
    return rows.set_index("step").value


def product(result: Result) -> float:
    """The paper's c = lambda_W lambda_H, of a network under the model's penalties."""
    problem = result.summary["problem"]
    return problem["weight_decay"][0] * problem["feature_decay"] * problem["num_samples"]


def residuals(result: Result) -> Tensor:
    """(N, n), of the training images."""
    tensors = result.tensors
    outputs = tensors["features/1"] @ weights(result)[0][0].mT + tensors["bias"][0]
    return outputs - tensors["targets"]


def network_claims(kinds: Mapping[str, list[Result]]) -> list[Claim]:
    """Collapse with decay and none without it; under the model's penalties its optimum as well.

    The paper's figures show the first two of other data; here they were written after single networks had been tried.
    """
    made = []
    for kind, own in kinds.items():
        found = {metric: [float(curve(result, metric).iloc[-1]) for result in own] for metric in METRICS}
        if kind.endswith("none"):
            text = f"{kind}: without decay NRC1 stays above {FREE:g}"
            made += owned(LATER, _judged(text, own, [value > FREE for value in found["nrc1"]], spread(found["nrc1"])))
            continue
        ufm = own[0].summary["problem"]["feature_decay"] is not None
        if ufm:
            found["nrc3"] = [_nrc3_at_c(result) for result in own]
        for metric, values in found.items():
            at = " at gamma = c" if ufm and metric == "nrc3" else ""
            text = f"{kind}: {metric.upper()}{at} at most {COLLAPSED:g}"
            made += owned(LATER, _judged(text, own, [value <= COLLAPSED for value in values], spread(values)))
        if ufm:
            made += _of_the_model(kind, own)
    return made


def _nrc3_at_c(result: Result) -> float:
    """Undefined where c exceeds the least variance of the targets."""
    targets = result.tensors["targets"]
    least = float(torch.linalg.svdvals(targets - targets.mean(dim=0))[-1] ** 2 / len(targets))
    return float(nrc3(weights(result)[0][0], targets, product(result)).value) if product(result) < least else np.nan


def _of_the_model(kind: str, own: Sequence[Result]) -> list[Claim]:
    best = [reference(result, "global optimum") for result in own]
    gaps = [result.losses[0] / value - 1 for result, value in zip(own, best, strict=True)]
    never = every(f"{kind}: no loss is below the optimum of the model", [gap > -1e-6 for gap in gaps], spread(gaps))
    text = f"{kind}: loss within {NEAR:.0%} of the optimum of the model"
    return [*owned(THEOREM, never), *owned(LATER, _judged(text, own, [gap <= NEAR for gap in gaps], spread(gaps)))]


def _judged(text: str, results: Sequence[Result], passed: Sequence[bool], measured: str) -> Claim:
    """Undecided where a network does not fit its images, or misses a limit after too short a training."""
    fits = [float(curve(result, "r_squared").iloc[-1]) for result in results]
    claim = every(text, passed, measured)
    if min(fits) < FITTED:
        return Claim(text, claim.expected, f"{claim.measured}; R^2 {min(fits):.2f}", None)
    decays = [result for result in results if min(result.summary["problem"]["weight_decay"]) > 0]
    if not claim.holds and decays and min(map(decay_times, decays)) < DECAY_TIMES:
        lasted = min(map(decay_times, decays))
        return Claim(text, claim.expected, f"{claim.measured}; {lasted:.2g} time constants of the decay only", None)
    return claim


def networks_figure(kinds: Mapping[str, list[Result]]) -> "Figure":
    """NRC1-3 over epochs; below them R^2, explained variance, and residuals under the model's penalties."""
    all_of_them = [result for own in kinds.values() for result in own]
    looks = {
        kind: {"color": style.PALETTE[place % 6], "linestyle": style.LINES[2 * (place // 6)]}
        for place, kind in enumerate(kinds)
    }
    title = f"Networks fitted to three numbers of every image, {count_of_networks(all_of_them)}"
    with Sheet(2, 3, title=title, width=1.4) as sheet:
        for kind, own in kinds.items():
            frame = record_of(own)
            frame = frame[(frame.stage == "head") & (frame.step > 0)]
            for axes, metric in zip(sheet.row(0), METRICS, strict=True):
                marks.spread(frame[frame.metric == metric], axes, **looks[kind])
            rows = frame.assign(value=1 - frame.value)
            marks.spread(rows[rows.metric == "test_r_squared"], sheet[1, 0], **looks[kind])
            shares = own[0].summary["regression"]["explained_variance"][0]
            sheet[1, 1].plot(range(1, 6), np.maximum(shares, 1e-8), marker="o", markersize=2.5, **looks[kind])
            sheet.legend([marks.line(NAMES[kind], **looks[kind])])
        for axes, label in zip(sheet.row(0), METRICS.values(), strict=True):
            axes.set(xscale="log", yscale="log", xlabel="epoch", ylabel=label)
        sheet[1, 0].set(xscale="log", yscale="log", xlabel="epoch", ylabel=r"$1 - R^2$, test images")
        sheet[1, 1].set(yscale="log", xlabel="principal component", ylabel="share of the features' variance")
        _residuals(sheet, sheet[1, 2], {kind: own for kind, own in kinds.items() if kind.endswith("ufm")}, looks)
    return sheet.figure


def _residuals(sheet: Sheet, axes: "Axes", kinds: Mapping[str, list[Result]], looks: Mapping[str, dict]) -> None:
    """Of the first 300 images, over sqrt c: at the optimum of the model they are white, of variance 1."""
    if not kinds:
        sheet.drop(axes)
        return
    for (kind, own), marker in zip(kinds.items(), style.MARKERS, strict=False):
        rest = residuals(own[0])[:300].numpy() / product(own[0]) ** 0.5
        marks.dots(axes, rest[:, 0], rest[:, 1], looks[kind]["color"], marker)
    axes.set(xlabel=r"residual of output 1 / $\sqrt{c}$", ylabel=r"residual of output 2 / $\sqrt{c}$", aspect="equal")


def networks_table(kinds: Mapping[str, list[Result]]) -> pd.DataFrame:
    """One row per network: how well it fits, NRC1-3 and its loss at the end."""
    rows = []
    for kind, own in kinds.items():
        for result in own:
            names = ("r_squared", "test_r_squared", *METRICS)
            rows.append(
                {
                    "kind": kind,
                    "seed": result.config.seed,
                    "samples_per_class": result.config.data.samples_per_class,
                    "epochs": result.config.backbone.epochs,
                    "loss": result.losses[0],
                    "optimum": reference(result, "global optimum"),
                    **{name: float(curve(result, name).iloc[-1]) for name in names},
                    "seconds": sum(result.summary.get("timings", {}).values()),
                }
            )
    return pd.DataFrame(rows)

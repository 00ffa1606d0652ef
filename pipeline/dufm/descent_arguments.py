"""What a descent is called with, checked before it begins: every error names the argument and what it may be."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline import dufm
from pipeline.dufm.cost import Anchor
from pipeline.dufm.descent_torch import Project
from pipeline.runtime.devices import has_float64

BACKENDS = ("auto", "native", "torch")


def check_tensors(
    features: Tensor,
    weights: Sequence[Tensor],
    labels: Tensor | None,
    num_classes: int,
    bias: Tensor | None = None,
    targets: Tensor | None = None,
) -> None:
    """Raise ValueError unless the tensors fit together, are of one dtype and device, and finite."""
    dufm.check_shapes(features, weights)
    if features.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features must be float32 or float64, got {features.dtype}")
    named = [("features", features), *((f"weights[{i}]", weight) for i, weight in enumerate(weights))]
    named += [(name, tensor) for name, tensor in (("bias", bias), ("targets", targets)) if tensor is not None]
    for name, tensor in named:
        if tensor.dtype != features.dtype or tensor.device != features.device:
            expected, found = (features.dtype, str(features.device)), (tensor.dtype, str(tensor.device))
            raise ValueError(f"{name} must be of the features' dtype and device {expected}, got {found}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinite entries")
    if not has_float64(features.device):
        raise ValueError(f"features must be on a CPU or a CUDA device, which have float64, got {features.device}")
    if weights and weights[-1].shape[-2] != num_classes:
        raise ValueError(
            f"num_classes must be what the last weight puts out, {weights[-1].shape[-2]}, got {num_classes}"
        )
    if bias is not None and (not weights or bias.dim() > 2 or bias.shape[-1] != num_classes):
        raise ValueError(
            f"bias must be of a last layer with {num_classes} outputs, ({num_classes},) or a row per member, got "
            f"shape {tuple(bias.shape)} and {len(weights)} weights"
        )
    if targets is not None and targets.shape != (features.shape[-2], num_classes):
        raise ValueError(
            f"targets must have one row per sample and one column per output, ({features.shape[-2]}, {num_classes}), "
            f"got shape {tuple(targets.shape)}"
        )
    if targets is None and (labels is None or labels.shape != features.shape[-2:-1]):
        shape = None if labels is None else tuple(labels.shape)
        raise ValueError(f"labels must be one per sample, ({features.shape[-2]},), got shape {shape}")


def check_choices(
    features: Tensor,
    feature_decay: float | Tensor | None,
    momentum: float,
    constraint: Project | None,
    tf32: bool,
    backend: str,
    anchor: Anchor | None = None,
) -> None:
    """Raise ValueError unless each setting is in its range and goes with the others."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    if tf32 and features.dtype != torch.float32:
        raise ValueError(f"tf32 must be off unless the tensors are float32, got tf32=True with {features.dtype}")
    if constraint is not None and feature_decay is None:
        raise ValueError("constraint must be None for frozen features (feature_decay=None), got one")
    if anchor is not None:
        check_anchor(features, feature_decay, anchor)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")


def check_anchor(features: Tensor, feature_decay: float | Tensor | None, anchor: Anchor) -> None:
    """Raise ValueError unless free features can be tied to the anchor."""
    if feature_decay is None:
        raise ValueError("anchor must be None for frozen features (feature_decay=None), got one")
    if anchor.features.shape[-2:] != features.shape[-2:] or anchor.features.dim() > 3:
        raise ValueError(
            f"the anchor's features must be like the features, {tuple(features.shape[-2:])}, got shape "
            f"{tuple(anchor.features.shape)}"
        )
    if not 0 <= anchor.strength < torch.inf:
        raise ValueError(f"the anchor's strength must be finite and >= 0, got {anchor.strength}")


def check_bias_decay(bias_decay: float, bias: Tensor | None) -> None:
    """Raise ValueError unless it is a decay, and there is a bias to decay."""
    if not 0 <= bias_decay < torch.inf:
        raise ValueError(f"bias_decay must be finite and >= 0, got {bias_decay}")
    if bias_decay and bias is None:
        raise ValueError(f"bias_decay must be 0 without a bias, got {bias_decay}")


def check_mixed(mixed: bool, features: Tensor, feature_decay: float | Tensor | None) -> None:
    """Raise ValueError where products in float32 cannot begin what is to end in float64."""
    if mixed and (features.dtype != torch.float64 or feature_decay is not None):
        kind = "frozen" if feature_decay is None else "free"
        raise ValueError(f"mixed must be off unless features are frozen and float64, got {kind} {features.dtype} ones")


def count_members(
    features: Tensor,
    weights: Sequence[Tensor],
    lr: float | Tensor,
    weight_decay: float | Tensor,
    feature_decay: float | Tensor | None,
    bias: Tensor | None = None,
    anchor: Anchor | None = None,
) -> int:
    """S: how many members the arguments speak of; each speaks of one (shared by all) or of all."""
    counts = {"features and weights": dufm.num_members(features, weights)}
    settings = {"lr": (lr, 1), "weight_decay": (weight_decay, 2), "feature_decay": (feature_decay, 1)}
    settings |= {"bias": (bias, 2), "anchor": (anchor and anchor.features, 3)}
    for name, (value, dims_with_members) in settings.items():
        if isinstance(value, Tensor) and value.dim() == dims_with_members:
            counts[name] = value.shape[0]
    members = max(counts.values())
    if any(count not in (1, members) for count in counts.values()):
        raise ValueError(f"all arguments must speak of one number of members (or of one for all), got {counts}")
    return members


def per_member(name: str, value: float | Tensor, members: int, zero_allowed: bool = True) -> Tensor:
    """A setting as float64 `(S,)` on the CPU."""
    setting = torch.as_tensor(value, dtype=torch.float64).cpu()
    if setting.dim() > 1:
        raise ValueError(f"{name} must be a number or ({members},), got shape {tuple(setting.shape)}")
    if not bool((torch.isfinite(setting) & ((setting > 0) | (setting.eq(0) & zero_allowed))).all()):
        raise ValueError(f"{name} must be finite and {'>= 0' if zero_allowed else '> 0'}, got {setting.tolist()}")
    return setting.expand(members)

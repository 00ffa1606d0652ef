"""Steps of gradient descent on a batch of DUFMs by the C++ kernel `descent_kernel.cpp`, on a CPU: squared error or
cross-entropy, features free, frozen or not negative.

The kernel is compiled on first use by whatever C++ compiler there is (a few seconds) and kept in the user's cache
folder. Without a compiler `library()` is None and the steps are taken by `pipeline.dufm.descent_torch`.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import NoneType

import torch
from torch import Tensor

from pipeline.dufm.constraints import Constraint
from pipeline.dufm.descent_torch import Parameters, Rule
from pipeline.runtime.native import built

SOURCE = Path(__file__).with_name("descent_kernel.cpp")
CACHE_LINE_BYTES = 64
OBJECTIVES = ("squared_error", "cross_entropy")
"""What the kernel can descend on; an objective says by `Objective.kernel` which of these it is."""
CONSTRAINTS = ("nonnegative",)
"""Of `pipeline.dufm.CONSTRAINTS`, what the kernel can keep free features in."""


class _Problem(ctypes.Structure):
    """`struct Problem` of the kernel."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("steps", "members", "samples", "depth", "relu")),
        *((name, ctypes.c_int64) for name in ("shared_features", "threads", "cross_entropy", "nonnegative")),
        *((name, ctypes.c_void_p) for name in ("widths", "features", "feature_velocity", "weights", "velocities")),
        *((name, ctypes.c_void_p) for name in ("targets", "lr", "weight_decay", "feature_decay")),
        ("momentum", ctypes.c_double),
    )


class NativeSteps:
    """Takes steps from `start`, one member per thread; `parameters` are views of where the members are now."""

    def __init__(self, start: Parameters, rule: Rule) -> None:
        free = rule.feature_decay is not None
        self.parameters = Parameters(
            _padded(start.features),
            [_padded(weight) for weight in start.weights],
            [_padded(velocity) for velocity in start.velocities],
        )
        members, samples, depth = len(rule.lr), start.features.shape[-2], len(start.weights)
        velocities = self.parameters.velocities
        widths = torch.tensor([*(weight.shape[-1] for weight in start.weights), rule.targets.shape[-1]])
        weight_pointers, velocity_pointers = _pointers(self.parameters.weights), _pointers(velocities[:depth])
        tables = [widths, _padded(rule.targets), rule.lr.contiguous(), rule.weight_decay.contiguous()]
        feature_decay = rule.feature_decay.contiguous() if free else None
        self._kept_alive = [weight_pointers, velocity_pointers, feature_decay, *tables]
        self._problem = _Problem(
            members=members,
            samples=samples,
            depth=depth,
            relu=rule.activation == "relu",
            shared_features=start.features.dim() == 2,
            cross_entropy=rule.loss.kernel == "cross_entropy",
            nonnegative=rule.constraint is not None,
            widths=tables[0].data_ptr(),
            features=self.parameters.features.data_ptr(),
            feature_velocity=velocities[-1].data_ptr() if velocities and free else None,
            weights=ctypes.addressof(weight_pointers),
            velocities=ctypes.addressof(velocity_pointers) if velocities else None,
            targets=tables[1].data_ptr(),
            lr=tables[2].data_ptr(),
            weight_decay=tables[3].data_ptr(),
            feature_decay=feature_decay.data_ptr() if free else None,
            momentum=rule.momentum,
        )
        kernel = library()
        assert kernel is not None
        self._run = kernel.descend_float64 if start.features.dtype == torch.float64 else kernel.descend_float32

    def run(self, steps: int) -> None:
        """Take some steps."""
        self._problem.steps = steps
        self._problem.threads = torch.get_num_threads()
        self._run(ctypes.byref(self._problem))


def why_not_native(features: Tensor, rule: Rule, bias: Tensor | None = None) -> str | None:
    """Why the kernel cannot take these steps, or None if it can."""
    if features.device.type != "cpu":
        return f"the tensors are on {features.device}"
    if rule.loss.kernel not in OBJECTIVES:
        return f"the kernel does not know {rule.loss.title}"
    if type(constraint := rule.constraint) not in (NoneType, Constraint):
        return "there is a constraint of its own"
    if constraint is not None and constraint.name not in CONSTRAINTS:
        return f"the kernel does not know features.constraint={constraint.name}"
    if bias is not None:
        return "the last layer has a bias"
    if rule.anchor is not None:
        return "the features are tied to an anchor"
    if not rule.weight_decay.shape[1]:
        return "there are no weights"
    return None if library() is not None else "no working C++ compiler was found"


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    kernel = built(SOURCE, "gradient descent runs in plain PyTorch")
    if kernel is not None:
        for function in (kernel.descend_float32, kernel.descend_float64):
            function.restype = None
    return kernel


def _padded(rows: Tensor) -> Tensor:
    """A copy whose rows are zero-padded to an odd number of cache lines, as the kernel wants them."""
    per_line = CACHE_LINE_BYTES // rows.element_size()
    width = rows.shape[-1]
    storage = rows.new_zeros(*rows.shape[:-1], (-(-width // per_line) | 1) * per_line)
    view = storage[..., :width]
    view.copy_(rows)
    return view


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))

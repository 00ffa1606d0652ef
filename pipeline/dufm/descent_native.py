"""Steps of gradient descent on a batch of DUFMs by the C++ kernel `descent_kernel.cpp`, on a CPU: squared error or
cross-entropy, features free, frozen or not negative.

The kernel is compiled on first use by whatever C++ compiler there is (some 20 seconds) and kept in the user's cache
folder. Without a compiler `library()` is None and the steps are taken by `pipeline.dufm.descent_torch`.
"""

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import NoneType

import torch
from torch import Tensor

from pipeline.dufm.constraints import Constraint
from pipeline.dufm.descent_torch import Parameters, Rule
from pipeline.dufm.pace import Pace
from pipeline.runtime.native import built

SOURCE = Path(__file__).with_name("descent_kernel.cpp")
CACHE_LINE_BYTES = 64
OBJECTIVES = ("squared_error", "cross_entropy")
"""What the kernel can descend on; an objective says by `Objective.kernel` which of these it is."""
CONSTRAINTS = ("nonnegative",)
"""Of `pipeline.dufm.CONSTRAINTS`, what the kernel can keep free features in."""


class Shape(ctypes.Structure):
    """`struct Shape` of the kernels."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("samples", "depth", "relu", "cross_entropy")),
        *((name, ctypes.c_void_p) for name in ("widths", "targets")),
    )


class _Problem(ctypes.Structure):
    """`struct Problem` of the kernel."""

    _fields_ = (
        ("shape", Shape),
        *((name, ctypes.c_int64) for name in ("steps", "shared_features", "threads", "nonnegative")),
        ("chosen", ctypes.c_void_p),
        ("num_chosen", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("features", "feature_velocity", "weights", "velocities")),
        *((name, ctypes.c_void_p) for name in ("lr", "weight_decay", "feature_decay")),
        ("momentum", ctypes.c_double),
    )


class NativeSteps:
    """Takes steps from `start`, one member per thread, or a team of threads for each where there are more threads than
    members; `parameters` are views of where the members are now.

    Args:
        start: where the members are.
        rule: what a step is.
        single: which of them multiply in float32, though all is float64: weights are rounded once per step, sums of
            128 samples are added up in float64, and so move the weights. For frozen features.
    """

    def __init__(self, start: Parameters, rule: Rule, single: Sequence[int] = ()) -> None:
        self.parameters = Parameters(
            padded(start.features),
            [padded(weight) for weight in start.weights],
            [padded(velocity) for velocity in start.velocities],
        )
        kernel = library()
        assert kernel is not None
        members, own = range(len(rule.lr)), start.features.dtype
        double = [member for member in members if member not in single]
        steps = kernel.descend_float64 if own == torch.float64 else kernel.descend_float32
        self._calls = [(steps, _Call(self.parameters, rule, double, own))] if double else []
        if single:
            self._calls.append((kernel.descend_mixed, _Call(self.parameters, rule, single, torch.float32)))

    def run(self, steps: int) -> None:
        """Take some steps."""
        for kernel, call in self._calls:
            call.run(kernel, steps)


class _Call:
    """The `problem` of some members, whose tensors it keeps alive; products are of `dtype`."""

    def __init__(self, at: Parameters, rule: Rule, chosen: Sequence[int], dtype: torch.dtype) -> None:
        free, depth, velocities = rule.feature_decay is not None, len(at.weights), at.velocities
        features = at.features if at.features.dtype == dtype else padded(at.features.to(dtype))
        widths = [*(weight.shape[-1] for weight in at.weights), rule.targets.shape[-1]]
        tables = [torch.tensor(widths), padded(rule.targets.to(dtype)), rule.lr.contiguous()]
        tables += [rule.weight_decay.contiguous(), torch.tensor(chosen)]
        feature_decay = rule.feature_decay.contiguous() if free else None
        weight_pointers, velocity_pointers = _pointers(at.weights), _pointers(velocities[:depth])
        self._kept_alive = [at, features, weight_pointers, velocity_pointers, feature_decay, *tables]
        self.problem = _Problem(
            shape=Shape(
                samples=features.shape[-2],
                depth=depth,
                relu=rule.activation == "relu",
                cross_entropy=rule.loss.kernel == "cross_entropy",
                widths=tables[0].data_ptr(),
                targets=tables[1].data_ptr(),
            ),
            shared_features=features.dim() == 2,
            nonnegative=rule.constraint is not None,
            features=features.data_ptr(),
            feature_velocity=velocities[-1].data_ptr() if velocities and free else None,
            weights=ctypes.addressof(weight_pointers),
            velocities=ctypes.addressof(velocity_pointers) if velocities else None,
            lr=tables[2].data_ptr(),
            weight_decay=tables[3].data_ptr(),
            feature_decay=feature_decay.data_ptr() if free else None,
            momentum=rule.momentum,
            chosen=tables[4].data_ptr(),
            num_chosen=len(chosen),
        )
        self._pace = Pace()

    def run(self, kernel: Callable[..., None], steps: int) -> None:
        """Take some steps. With threads to spare there are two ways, to the same bits: a team for each member, or one
        thread, which is faster where other programs keep the team waiting."""
        most, least = torch.get_num_threads(), self.problem.num_chosen
        for threads, share in self._pace.shares([most] if most <= least else [most, least], steps):
            self.problem.steps, self.problem.threads = share, threads
            started = time.perf_counter()
            kernel(ctypes.byref(self.problem))
            self._pace.took(threads, share, time.perf_counter() - started)


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
        for function in (kernel.descend_float32, kernel.descend_float64, kernel.descend_mixed):
            function.restype = None
    return kernel


def padded(rows: Tensor) -> Tensor:
    """A copy whose rows are zero-padded to an odd number of cache lines, as the kernel wants them."""
    per_line = CACHE_LINE_BYTES // rows.element_size()
    width = rows.shape[-1]
    storage = rows.new_zeros(*rows.shape[:-1], (-(-width // per_line) | 1) * per_line)
    view = storage[..., :width]
    view.copy_(rows)
    return view


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))

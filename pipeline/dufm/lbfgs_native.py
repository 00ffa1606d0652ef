"""`pipeline.dufm.lbfgs` on DUFMs with free features by the C++ kernel `lbfgs_kernel.cpp`, on a CPU: each member on one
thread, with its history (in float32) in the cache.

Compiled on first use like the kernel of descents; without a compiler, and for what it does not know, the searches run
in PyTorch.
"""

import ctypes
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pipeline.dufm import lbfgs
from pipeline.dufm.cost import Cost, Point
from pipeline.dufm.descent_native import OBJECTIVES, Shape, padded
from pipeline.runtime.native import built

SOURCE = Path(__file__).with_name("lbfgs_kernel.cpp")
CONSTRAINTS = ("none", "nonnegative")
"""What features may be kept in, as `pipeline.dufm.charts` does it."""


class _Task(ctypes.Structure):
    """`struct Task` of the kernel."""

    _fields_ = (
        ("shape", Shape),
        ("squares", ctypes.c_int64),
        ("weight_decay", ctypes.c_void_p),
        ("feature_decay", ctypes.c_double),
        ("masks", ctypes.c_void_p),
    )


class _Settings(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_double) for name in ("sufficient", "curvature", "rounding")),
        *((name, ctypes.c_int64) for name in ("most_trials", "patience")),
    )


class NativeSearch:
    """Does what `pipeline.dufm.lbfgs.Search` does.

    Args:
        cost: of R members, float64 on the CPU, without a bias and an anchor.
        widths: d_1..d_L.
        position: `(R, P)`, coordinates of a `pipeline.dufm.charts.Chart`.
        constraint: one of `CONSTRAINTS`.
        masks: `(R, N, d)` each, as `Cost.pattern` gives them.
    """

    def __init__(
        self,
        cost: Cost,
        widths: Sequence[int],
        position: Tensor,
        constraint: str = "none",
        masks: Sequence[Tensor] | None = None,
    ) -> None:
        kernel = library()
        assert kernel is not None
        self.position = position.clone()
        self.rows = torch.arange(len(position))
        self.iterations = [0] * len(position)
        tasks = self._tasks(cost, widths, constraint == "nonnegative", masks or ())
        handles = (ctypes.c_void_p * len(position))()
        starts = (ctypes.c_void_p * len(position))(*(row.data_ptr() for row in self.position))
        settings = _Settings(lbfgs.SUFFICIENT, lbfgs.CURVATURE, lbfgs.ROUNDING, lbfgs.MOST_TRIALS, lbfgs.PATIENCE)
        count, threads = ctypes.c_int64(len(position)), ctypes.c_int64(torch.get_num_threads())
        kernel.search_begin(tasks, ctypes.byref(settings), starts, count, threads, handles)
        self._kernel, self._handles = kernel, list(handles)
        weakref.finalize(self, _end, kernel, self._handles)

    @property
    def now(self) -> Tensor:
        """Where the members are that are not done."""
        found = torch.empty_like(self.position[self.rows])
        for row, place in zip(self.rows.tolist(), found, strict=True):
            self._read(row, place)
        return found

    def advance(self, iterations: int, tolerance: float) -> int:
        """Up to so many iterations of every member that is not done; returns the most that one has taken."""
        rows = self.rows.tolist()
        if not rows:
            return 0
        handles = (ctypes.c_void_p * len(rows))(*(self._handles[row] for row in rows))
        taken, done = ((ctypes.c_int64 * len(rows))() for _ in range(2))
        count, most, threads = (ctypes.c_int64(n) for n in (len(rows), iterations, torch.get_num_threads()))
        self._kernel.search_run(handles, count, most, ctypes.c_double(tolerance), threads, taken, done)
        for row, steps in zip(rows, taken, strict=True):
            self.iterations[row] += steps
        self.keep(torch.tensor([not one for one in done]))
        return max(taken)

    def keep(self, going: Tensor) -> None:
        """Let the other members stay where they are."""
        for row in self.rows.tolist():
            self._read(row, self.position[row])
        self.rows = self.rows[going]

    def _read(self, row: int, place: Tensor) -> None:
        self._kernel.search_read(ctypes.c_void_p(self._handles[row]), ctypes.c_void_p(place.data_ptr()))

    def _tasks(
        self, cost: Cost, widths: Sequence[int], squares: bool, masks: Sequence[Tensor]
    ) -> "ctypes.Array[_Task]":
        """One for every member; what they point to is kept alive."""
        samples, classes = cost.targets.shape
        sizes, targets = torch.tensor([*widths, classes]), padded(cost.targets)
        decay, fires = cost.weight_decay.contiguous(), [padded(mask) for mask in masks]
        pointers = [(ctypes.c_void_p * len(fires))(*(mask[row].data_ptr() for mask in fires)) for row in self.rows]
        shape = Shape(
            samples=samples,
            depth=len(widths),
            relu=cost.activation == "relu",
            cross_entropy=cost.loss.kernel == "cross_entropy",
            widths=sizes.data_ptr(),
            targets=targets.data_ptr(),
        )
        tasks = (_Task * len(decay))(
            *(
                _Task(shape, squares, decay[row].data_ptr(), float(cost.feature_decay[row]), ctypes.addressof(own))
                if fires
                else _Task(shape, squares, decay[row].data_ptr(), float(cost.feature_decay[row]), None)
                for row, own in enumerate(pointers)
            )
        )
        self._kept_alive = [sizes, targets, decay, fires, pointers, tasks]
        return tasks


def can_search(cost: Cost, point: Point, constraint: str) -> bool:
    """Whether the kernel knows this problem."""
    return (
        point.weights != ()
        and point.weights[0].device.type == "cpu"
        and cost.feature_decay is not None
        and cost.loss.kernel in OBJECTIVES
        and constraint in CONSTRAINTS
        and point.bias is None
        and cost.anchor is None
        and library() is not None
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    kernel = built(SOURCE, "L-BFGS runs in plain PyTorch")
    if kernel is not None:
        for function in (kernel.search_begin, kernel.search_run, kernel.search_read, kernel.search_end):
            function.restype = None
    return kernel


def _end(kernel: ctypes.CDLL, handles: list[int]) -> None:
    for handle in handles:
        kernel.search_end(ctypes.c_void_p(handle))

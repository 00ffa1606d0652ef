"""Batch norms of maps whose channels lie side by side, on a CPU, by the C++ kernel `norm_kernel.cpp`.

PyTorch's own sums such maps naively in float32: the layout in which convolutions are faster would cost two digits of
the gradients. The kernel is compiled on first use by whatever C++ compiler there is (a few seconds) and kept in the
user's cache folder.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from pipeline.runtime import ranks
from pipeline.runtime.native import built, openmp

SOURCE = Path(__file__).with_name("norm_kernel.cpp")
OTHERS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LocalResponseNorm)
"""Modules that sum maps over positions."""
TIMM = "timm.layers.norm_act.BatchNormAct2d"
LAST = torch.channels_last


def is_ours(part: nn.Module) -> bool:
    """Whether the kernel can stand for a batch norm: PyTorch's, or timm's with an activation behind it."""
    if not isinstance(part, nn.BatchNorm2d):
        return False
    kind = type(part)
    return kind.forward is _BatchNorm.forward or f"{kind.__module__}.{kind.__name__}" == TIMM


def why_not(network: nn.Module) -> str | None:
    """Why a network is not to be trained channels last on a CPU, as a clause; None if it is.

    Dropout on maps would draw other units, and other norms are not in the kernel.
    """
    parts = list(network.modules())
    if not any(map(is_ours, parts)):
        return "no batch norms of maps"
    if any(isinstance(part, OTHERS) and not is_ours(part) for part in parts):
        return "norms of other kinds"
    if any(isinstance(part, _DropoutNd) and part.p for part in parts):
        return "dropout"
    if any(
        isinstance(it, Tensor) and it.is_floating_point() and it.dtype != torch.float32
        for part in parts
        if is_ours(part)
        for it in (*part.parameters(False), *part.buffers(False))
    ):
        return "norms that are not of float32"
    return None if library() is not None else "no working C++ compiler was found"


class _Problem(ctypes.Structure):
    """`struct Norm` of the kernel."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "channels", "threads", "half", "given", "rectified")),
        *((name, ctypes.c_void_p) for name in ("launch", "input", "gradient", "output")),
        *((name, ctypes.c_void_p) for name in ("shortcut", "activations", "behind", "weight", "bias")),
        *((name, ctypes.c_void_p) for name in ("mean", "variance", "sums", "weight_gradient", "bias_gradient")),
        *((name, ctypes.c_void_p) for name in ("running_mean", "running_variance")),
        *((name, ctypes.c_double) for name in ("count", "epsilon", "momentum")),
    )


class NativeNorm:
    """The forward pass of one batch norm, with what a residual network does behind it in the same passes."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.norm, self.alone = norm, norm.forward

    def __call__(self, inputs: Tensor, *, rectified: bool = False, shortcut: Tensor | None = None) -> Tensor:
        """The norm of `inputs` ``(B, C, H, W)``; ReLU of it; or ReLU of the sum of it and a shortcut of its shape."""
        norm = self.norm
        given = not norm.training and norm.running_mean is not None
        single = norm.training and ranks.world_size() == 1 and inputs.numel() == inputs.shape[1]
        if (
            not inputs.numel()
            or single  # an error, which it states itself
            or inputs.dtype not in (torch.float32, torch.bfloat16)
            or (given and not torch.is_grad_enabled())
            or (shortcut is not None and shortcut.shape != inputs.shape)
        ):
            outputs = self.alone(inputs)
            outputs = outputs if shortcut is None else outputs + shortcut
            return outputs if shortcut is None and not rectified else outputs.relu()
        outputs = _Normalise.apply(inputs, norm.weight, norm.bias, shortcut, self, rectified or shortcut is not None)
        for name in ("drop", "act"):
            part = norm._modules.get(name)
            outputs = outputs if part is None else part(outputs)
        return outputs

    def momentum(self) -> float:
        """Of the running statistics in this step, which is counted."""
        norm = self.norm
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:
                return 1 / float(norm.num_batches_tracked)
        return norm.momentum or 0.0


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias of maps ``(B, C, H, W)``, float32 or bf16, with mean and biased
    variance of all ranks' batches, or the running ones in evaluation mode; and what is behind it. Statistics are
    float64; float32 maps are what these operations are by themselves, to the bit, and bf16 maps are rounded once."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        shortcut: Tensor | None,
        norm: NativeNorm,
        rectified: bool,
    ) -> Tensor:
        module, inputs = norm.norm, inputs.contiguous(memory_format=LAST)
        outputs = torch.empty_like(inputs, memory_format=LAST)
        given = not module.training and module.running_mean is not None
        if given:
            statistics = torch.stack([module.running_mean, module.running_var]).double()
        else:
            statistics = torch.empty(2, inputs.shape[1], dtype=torch.float64)
        problem = _problem(inputs, weight, bias, statistics, module.eps, given)
        if shortcut is not None:
            shortcut = shortcut.to(inputs.dtype).contiguous(memory_format=LAST)
        problem.output, problem.shortcut, problem.rectified = outputs.data_ptr(), _pointer(shortcut), rectified
        kernel = library()
        if not given:
            problem.sums = statistics.data_ptr()
            kernel.norm_moments(ctypes.byref(problem))
            problem.count = _join_moments(statistics, problem.rows)
            if module.training and module.track_running_stats and module.running_mean is not None:
                problem.momentum = norm.momentum()
                problem.running_mean = module.running_mean.data_ptr()
                problem.running_variance = module.running_var.data_ptr()
        kernel.norm_forward(ctypes.byref(problem))
        ctx.save_for_backward(inputs, weight, bias, statistics, None if shortcut is None else outputs)
        ctx.problem = problem
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, bias, statistics, outputs = ctx.saved_tensors
        gradient = gradient.to(inputs.dtype).contiguous(memory_format=LAST)
        problem, kernel = ctx.problem, library()
        behind = None if outputs is None else torch.empty_like(inputs, memory_format=LAST)
        found = torch.empty_like(inputs, memory_format=LAST)
        sums = torch.empty_like(statistics)
        of_weight, of_bias = (None if it is None else torch.empty_like(it) for it in (weight, bias))
        problem.gradient, problem.output, problem.sums = gradient.data_ptr(), found.data_ptr(), sums.data_ptr()
        problem.activations, problem.behind = _pointer(outputs), _pointer(behind)
        problem.weight_gradient, problem.bias_gradient = _pointer(of_weight), _pointer(of_bias)
        kernel.norm_gradient_sums(ctypes.byref(problem))
        if not problem.given:
            ranks.total(sums)
        kernel.norm_backward(ctypes.byref(problem))
        return found, of_weight, of_bias, behind, None, None


def _problem(
    inputs: Tensor, weight: Tensor | None, bias: Tensor | None, statistics: Tensor, epsilon: float, given: bool
) -> _Problem:
    batch, channels, height, width = inputs.shape
    mean = statistics.data_ptr()
    return _Problem(
        rows=batch * height * width,
        channels=channels,
        threads=torch.get_num_threads(),
        half=inputs.dtype == torch.bfloat16,
        given=given,
        launch=openmp(),
        input=inputs.data_ptr(),
        weight=_pointer(weight),
        bias=_pointer(bias),
        mean=mean,
        variance=mean + statistics.element_size() * channels,
        epsilon=epsilon,
    )


def _join_moments(statistics: Tensor, rows: int) -> float:
    """Mean and variance ``(2, C)`` of this rank's rows become those of all ranks, in place; returns how many these are.

    Squares are about 0, which float64 can bear: rows are of float32.
    """
    if ranks.world_size() == 1:
        return rows
    mean, variance = statistics
    own = torch.cat([rows * mean, rows * (variance + mean.square()), torch.tensor([rows], dtype=torch.float64)])
    total = ranks.total(own)
    count = float(total[-1])
    torch.div(total[: len(mean)], count, out=mean)
    torch.sub(total[len(mean) : -1] / count, mean.square(), out=variance).clamp_(min=0)
    return count


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    kernel = built(SOURCE, "networks with batch norms train with maps as PyTorch lays them out")
    if kernel is not None:
        for function in (kernel.norm_moments, kernel.norm_forward, kernel.norm_gradient_sums, kernel.norm_backward):
            function.argtypes, function.restype = [ctypes.POINTER(_Problem)], None
    return kernel

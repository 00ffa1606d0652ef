"""Batch normalisation over the batch of all ranks, on any device.

A rank that normalised its own share of the batch would train another network than one process does. PyTorch's own
synchronised module needs a GPU; this one needs collectives only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.runtime import ranks


@contextmanager
def synchronised_norms(network: nn.Module) -> Iterator[None]:
    """Within, every batch norm of the network normalises over all ranks while it trains. With one rank, nothing."""
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm)] if ranks.world_size() > 1 else []
    for norm in norms:
        # On the instance, so that the module keeps its name, its state and its class.
        norm.forward = _Synchronised(norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


class _Synchronised:
    """The forward pass of one batch norm, timm's included, which applies an activation of its own afterwards."""

    def __init__(self, norm: _BatchNorm) -> None:
        self.norm = norm
        self.alone = norm.forward

    def __call__(self, inputs: Tensor) -> Tensor:
        norm = self.norm
        if not norm.training:
            return self.alone(inputs)
        outputs = _normalised(norm, inputs)
        for name in ("drop", "act"):
            outputs = getattr(norm, name, nn.Identity())(outputs)
        return outputs


def _normalised(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias with mean and biased variance of all ranks; updates the running
    statistics as `torch.nn.BatchNorm2d` does, with the unbiased variance. Half precision is normalised in float32."""
    given, inputs = inputs.dtype, inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    over = [dim for dim in range(inputs.dim()) if dim != 1]
    shape = [1, -1] + [1] * (inputs.dim() - 2)
    own = torch.full((1,), inputs.numel() / inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    total = _SumOverRanks.apply(torch.cat([inputs.sum(over), own]))
    count, mean = total[-1].detach(), total[:-1] / total[-1].detach()
    # Two rounds instead of E[x^2] - E[x]^2, which loses the digits of a small variance.
    centred = inputs - mean.view(shape)
    variance = _SumOverRanks.apply(centred.square().sum(over)) / count
    if norm.track_running_stats and norm.running_mean is not None:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean.to(norm.running_mean), momentum)
            norm.running_var.lerp_((variance * count / (count - 1).clamp(min=1)).to(norm.running_var), momentum)
    outputs = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.weight is not None:
        outputs = outputs * norm.weight.view(shape) + norm.bias.view(shape)
    return outputs.to(given)


class _SumOverRanks(torch.autograd.Function):
    """The sum of all ranks' tensors; every rank's loss depends on every rank's tensor, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total

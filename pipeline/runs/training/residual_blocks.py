"""Residual networks in a training step on a CPU: norm, shortcut and ReLU in the same passes over memory.

By themselves the sums and ReLUs are a twelfth of a step of ResNet-20 in bf16. Modules are called as before where they
compute something; those whose work the norm does are passed by, unless they have hooks.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import _has_any_global_hook

from pipeline.runs.training.native_norm import NativeNorm

TWO, THREE = ((f"conv{i}", f"bn{i}", f"act{i}") for i in (1, 2)), ((f"conv{i}", f"bn{i}", f"act{i}") for i in (1, 2, 3))
BLOCKS = {"timm.models.resnet.BasicBlock": tuple(TWO), "timm.models.resnet.Bottleneck": tuple(THREE)}
"""Names of convolution, norm and activation; the last activation has the shortcut before it."""
STEMS = ("timm.models.resnet.ResNet", "pipeline.networks.architectures.resnet20.ResNet20")
"""Networks that begin with `bn1` and `act1` one behind the other."""
Forward = Callable[..., Any]
Triple = tuple[str, str, str]


def fused(network: nn.Module, norms: Mapping[nn.Module, NativeNorm]) -> dict[nn.Module, Forward]:
    """What takes the place of the `forward` of modules of the network, by module; `norms` is what does so for norms."""
    found: dict[nn.Module, Forward] = dict(norms)
    for part in network.modules():
        name = f"{type(part).__module__}.{type(part).__name__}"
        if name in BLOCKS and _is_plain(part, BLOCKS[name], norms):
            found[part] = _Block(part, BLOCKS[name], norms)
        elif name in STEMS and _are_a_pair(part.bn1, part.act1, norms):
            pair = _Pair(part.bn1, part.act1, norms[part.bn1])
            found |= {part.bn1: pair.norm, part.act1: pair.activation}
    return found


class _Block:
    """The forward pass of a block: maps ``(B, C, H, W)`` to maps."""

    def __init__(self, block: nn.Module, names: tuple[Triple, ...], norms: Mapping[nn.Module, NativeNorm]):
        self._block, self._alone = block, block.forward
        parts = [[getattr(block, name) for name in triple] for triple in names]
        self._steps = [(convolution, norms[norm]) for convolution, norm, _ in parts]
        convolutions = {convolution for convolution, _, _ in parts}
        self._passed_by = [it for it in block.children() if it not in convolutions and it is not block.downsample]

    def __call__(self, maps: Tensor) -> Tensor:
        if _are_watched(self._passed_by):
            return self._alone(maps)
        *others, (last, norm) = self._steps
        inner = maps
        for convolution, before in others:
            inner = before(convolution(inner), rectified=True)
        inner = last(inner)
        shortcut = maps if self._block.downsample is None else self._block.downsample(maps)
        return norm(inner, shortcut=shortcut)


class _Pair:
    """A norm and the ReLU behind it, which then has nothing left to do."""

    def __init__(self, norm: nn.Module, activation: nn.Module, native: NativeNorm) -> None:
        self._parts, self._native, self._relu = [norm, activation], native, activation.forward
        self._done = False

    def norm(self, maps: Tensor) -> Tensor:
        self._done = not _are_watched(self._parts)
        return self._native(maps, rectified=self._done)

    def activation(self, maps: Tensor) -> Tensor:
        return maps if self._done else self._relu(maps)


def _is_plain(block: nn.Module, names: tuple[Triple, ...], norms: Mapping[nn.Module, NativeNorm]) -> bool:
    """Whether it is convolutions, norms that are ours, ReLU and the shortcut, and nothing else."""
    triples = [tuple(getattr(block, name) for name in triple) for triple in names]
    known = {part for triple in triples for part in triple} | {block.downsample}
    others = [part for part in block.children() if part not in known]
    return (
        "forward" not in vars(block)
        and all(_are_a_pair(norm, activation, norms) for _, norm, activation in triples)
        and all(type(part) is nn.Identity for part in others)
    )


def _are_a_pair(norm: nn.Module, activation: nn.Module, norms: Mapping[nn.Module, NativeNorm]) -> bool:
    return norm in norms and type(norm).forward is _BatchNorm.forward and type(activation) is nn.ReLU


def _are_watched(parts: list[nn.Module]) -> bool:
    """Whether somebody sees what goes in or comes out, or what the gradients are."""
    return _has_any_global_hook() or any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in parts
    )

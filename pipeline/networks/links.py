"""Which linear layer takes the output of a block as it is: the weight that the block's rows enter.

Found by watching one pass, so it holds of any module: a block and a `torch.nn.Linear` are linked if the very tensor
that the block gives, as vectors, is what the linear layer gets, and no other linear layer gets it.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.networks.backbone import Backbone
from pipeline.networks.probing import is_activation
from pipeline.runtime.modes import evaluating

CLASSIFIER = "classifier"
"""Stands for the linear classifier on top of a backbone, which is no module of it."""


@dataclass(frozen=True)
class Links:
    """What follows what in a network.

    Attributes:
        entered: block -> the linear layer that its output enters, or `CLASSIFIER`.
        following: linear layer -> the one that its block's output enters, where that block is a linear layer with at
            most an activation and norms around it; else absent.
        own_classifier: the linear layer whose output the network returns, None if that is something else.
        bare: linear layers that their block consists of: what it gives is what they give.
    """

    entered: Mapping[str, str]
    following: Mapping[str, str]
    own_classifier: str | None
    bare: frozenset[str] = frozenset()


@torch.no_grad()
def find_links(backbone: Backbone) -> Links:
    """The links of a backbone, by one pass in evaluation mode over an image of noise."""
    watch = _Watch(backbone)
    images = backbone.noise(2).to(next(backbone.parameters()).device)
    with evaluating(backbone), watch:
        output = backbone(images)
    entered = {block: takers[0] for block, takers in watch.takers.items() if len(takers) == 1}
    last = [block for block, value in watch.outputs.items() if _same(value, output)]
    entered |= {block: CLASSIFIER for block in last[-1:] if block not in watch.takers}
    own = [name for name, value in watch.linear_outputs.items() if _same(value, output)]
    following, bare = {}, set()
    for block, module in ((block, backbone.get_submodule(block)) for block in backbone.blocks):
        linear = _only_linear(block, module)
        if linear is not None and block in entered:
            following[linear] = entered[block]
            bare |= {linear} if len(list(module.children())) < 2 else set()
    return Links(entered, following, own[0] if own else None, frozenset(bare))


def _only_linear(block: str, module: nn.Module) -> str | None:
    """The name of the linear layer of a block that is nothing but that, an activation and norms; None for others."""
    if isinstance(module, nn.Linear):
        return block
    if not isinstance(module, nn.Sequential):
        return None
    linear = [name for name, part in module.named_children() if isinstance(part, nn.Linear)]
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.RMSNorm)
    others = [part for part in module.children() if not isinstance(part, nn.Linear)]
    plain = all(is_activation(part) or isinstance(part, norms) for part in others)
    return f"{block}.{linear[0]}" if plain and len(linear) == 1 else None


def _same(one: tuple[Tensor, int], other: Tensor) -> bool:
    """Whether two tensors are one, views of the same shape counting as that; not if it was changed in between."""
    value, version = one
    return value.data_ptr() == other.data_ptr() and value.shape == other.shape and version == other._version


class _Watch:
    """Context of one pass: outputs of blocks and of linear layers, and which linear layers get which of the former."""

    def __init__(self, backbone: Backbone) -> None:
        self.outputs: dict[str, tuple[Tensor, int]] = {}
        self.linear_outputs: dict[str, tuple[Tensor, int]] = {}
        self.takers: dict[str, list[str]] = {}
        self._backbone, self._hooks = backbone, ExitStack()

    def __enter__(self) -> "_Watch":
        for name, module in self._backbone.named_modules():
            if isinstance(module, nn.Linear):
                self._hooks.callback(module.register_forward_pre_hook(partial(self._see_input, name)).remove)
                self._hooks.callback(module.register_forward_hook(partial(self._see_linear, name)).remove)
        for block in self._backbone.blocks:
            module = self._backbone.get_submodule(block)
            self._hooks.callback(module.register_forward_hook(partial(self._see_block, block)).remove)
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def _see_input(self, name: str, module: nn.Module, inputs: tuple) -> None:
        value = inputs[0] if inputs else None
        for block, output in self.outputs.items():
            if isinstance(value, Tensor) and value.ndim == 2 and _same(output, value):
                self.takers.setdefault(block, []).append(name)

    def _see_linear(self, name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 2:
            self.linear_outputs[name] = output, output._version

    def _see_block(self, block: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 2:
            self.outputs[block] = output, output._version

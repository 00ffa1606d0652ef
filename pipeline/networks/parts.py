"""The parts that a network is stacked from, found at any depth of its modules.

A stack is a Sequential or ModuleList whose elements have parts of their own: stages, residual blocks, transformer
layers. Stacks within stacks are followed inwards as long as everything passes through them: what a branch beside
others gives (of a MobileOne block, of an inception module, of a residual block) is no layer of the network. Whether
everything passes is tried: with the output of one image in place of all others', the network must tell images apart no
longer. Where there is no stack, plain sequences of modules count (VGG's `features`), layer by layer: from one module
with weights to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from torch import nn

from pipeline.networks.probing import is_activation

PassesAll = Callable[[str], bool]
"""Whether all that a network knows of its images passes through the output of the module of this name."""
IsReadable = Callable[[str], bool]
"""Whether the module of this name runs once in a pass and gives a tensor."""

Part = tuple[str, nn.Module]
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def find_parts(name: str, network: nn.Module, passes_all: PassesAll, is_readable: IsReadable) -> list[str]:
    """Names of the parts, in the order of the modules; the network's own children with weights if it has no others."""
    search = _Search(passes_all, is_readable)
    return search.of_network(name, network) or search.in_series(name, network)


class _Search:
    def __init__(self, passes_all: PassesAll, is_readable: IsReadable) -> None:
        self._passes_all, self._is_readable = cache(passes_all), is_readable
        self._whole: set[type] = set()
        """Classes of parts that are not looked into."""

    def of_network(self, name: str, network: nn.Module) -> list[str]:
        """The elements of its stacks, or of those of the only module that it wraps."""
        stacks = _own_stacks(name, network)
        parts = [(f"{name}.{child}", part) for child, part in network.named_children() if _has_parts(part)]
        if not stacks and len(parts) == 1:
            return self.of_network(*parts[0])
        stacks = stacks or self._carrying(_inner_stacks(name, network))
        while True:
            known = len(self._whole)
            found = self._elements_of(stacks)
            # Modules of one class are looked into alike: the last block of a stage may have no shortcut, say.
            if len(self._whole) == known:
                return found

    def _elements_of(self, stacks: list[Part]) -> list[str]:
        """Elements of stacks, each replaced by the elements of its own stacks if it is but a stage."""
        found: list[str] = []
        for stack in stacks:
            for name, part in _elements(*stack):
                inner: list[str] = []
                if type(part) not in self._whole:
                    within = _inner_stacks(name, part)
                    # Of parallel branches, where what holds them gives no single tensor, all count.
                    inner = self._elements_of(self._carrying(within) if self._is_readable(name) else within)
                    if within and not inner and not _is_stack(part):
                        self._whole.add(type(part))
                found += inner or [name]
        return found

    def _carrying(self, stacks: list[Part]) -> list[Part]:
        """Those through which everything passes."""
        return [stack for stack in stacks if self._passes_all(_elements(*stack)[-1][0])]

    def in_series(self, name: str, module: nn.Module) -> list[str]:
        """The layers of a network without stacks."""
        if _is_flat(module):
            found = list(_layers(name, module))
            return found if len(found) > 1 else [name]  # a single layer is known by the name of the whole
        children = [(f"{name}.{child}", part) for child, part in module.named_children() if _has_weights(part)]
        if len(children) == 1 and _has_parts(children[0][1]):
            return self.in_series(*children[0])
        inner = {child: self._within(child, part) for child, part in children}
        whole = {type(part) for child, part in children if not inner[child] and not isinstance(part, nn.Sequential)}
        return [found for child, part in children for found in ([] if type(part) in whole else inner[child]) or [child]]

    def _within(self, name: str, module: nn.Module) -> list[str]:
        """The layers of a child, if it has plain sequences and all passes through them."""
        if not _is_flat(module) and not any(_is_flat(child) for child in module.children()):
            return []
        found = self.in_series(name, module)
        return found if self._passes_all(found[-1]) else []


def _is_stack(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) and any(map(_has_parts, module.children()))


def _own_stacks(name: str, module: nn.Module) -> list[Part]:
    """The module itself if it is a stack, or those of its children that are."""
    if _is_stack(module):
        return [(name, module)]
    return [(f"{name}.{child}", part) for child, part in module.named_children() if _is_stack(part)]


def _inner_stacks(name: str, module: nn.Module) -> list[Part]:
    """Its own stacks or, where it has none, the outermost ones below that have several elements."""
    own = _own_stacks(name, module)
    if own:
        return own
    children = [(f"{name}.{child}", part) for child, part in module.named_children()]
    found = [stack for child in children for stack in _inner_stacks(*child)]
    return [stack for stack in found if len(_elements(*stack)) > 1]


def _elements(name: str, stack: nn.Module) -> list[tuple[str, nn.Module]]:
    """Those with parts: a normalisation that carries its activation along is none."""
    return [(f"{name}.{child}", part) for child, part in stack.named_children() if _has_parts(part)]


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_parts(module: nn.Module) -> bool:
    return any(map(_has_weights, module.children()))


def _is_flat(module: nn.Module) -> bool:
    """Whether it is a plain sequence of modules without parts."""
    return isinstance(module, nn.Sequential) and _has_parts(module) and not any(map(_has_parts, module.children()))


def _layers(name: str, sequence: nn.Module) -> Iterator[str]:
    """For each module with weights that is no norm: itself, or the norm or activation after it that ends its layer."""
    end: str | None = None
    children = list(sequence.named_children())
    used = [id(part) for part in sequence._modules.values()]
    for child, part in children:
        weighted = _has_weights(part)
        if weighted and not isinstance(part, NORMS):
            if end is not None:
                yield end
            end = f"{name}.{child}"
        elif isinstance(part, NORMS) or (is_activation(part) and used.count(id(part)) == 1):
            end = f"{name}.{child}"
    if end is not None:
        yield end

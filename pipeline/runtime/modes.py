"""Training and evaluation mode of a module's parts."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Afterwards every part is in the mode it was in: a network may have some parts in eval mode while it trains."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within, all parts are in eval mode."""
    with modes_kept(module):
        module.eval()
        yield

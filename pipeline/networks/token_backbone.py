"""A network as a map from windows of tokens to one feature vector for each position."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.networks.backbone import Backbone, Read
from pipeline.networks.patterns import Pattern
from pipeline.networks.reading import Reading
from pipeline.networks.rows import Layout
from pipeline.networks.taps import Tap
from pipeline.runtime.modes import evaluating, modes_kept
from pipeline.runtime.text import first_line

POSITIONS = Layout(0, 2, 3)
"""Of activations (n, T, d)."""


class TokenBackbone(Backbone):
    """The same for tokens: features of n windows are ``(n, T, d)``, of every position.

    Layers are the elements of the network's lists of modules that give ``(n, T, d)``, or those that `layers` means, and
    every position is a row. A trial pass with random tokens shows which there are.

    Args:
        image_shape: (T, V), positions of a window and tokens that there are.

    Raises:
        ValueError: the network does not take such windows or gives something else than ``(n, T, d)``; nothing that is
            meant gives that; ways to read are asked for.
    """

    def __init__(
        self,
        network: nn.Module,
        image_shape: Sequence[int],
        *,
        name: str,
        layers: Sequence[Pattern] | Pattern | None = None,
        read: Read | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.network, self.name, self.image_shape = network, name, tuple(image_shape)
        if read:
            raise ValueError(f"backbone.read={read} is not for text, of which every position is read; allowed: null.")
        shapes = self._shapes()
        self.num_features = shapes["network"][-1]
        named = {block: None for pattern in layers or () for block, _ in self._matching("layers", pattern)}
        wanted = list(named) or self._elements(shapes) or ["network"]
        lacking = [block for block in wanted if block not in shapes]
        if lacking:
            raise ValueError(
                f"backbone.layers: {lacking[0].removeprefix('network.')} does not give (n, T, d) when {name} runs; "
                "allowed: modules that do."
            )
        self.blocks, self.activations = tuple(block for block in shapes if block in wanted), {}
        self.taps = {
            (block, "post"): Tap(block, "post", Reading.of("positions"), layout=POSITIONS) for block in self.blocks
        }

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (n, T, num_features) of tokens (n, T) int64, at least float32."""
        output = self.network(tokens)
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def noise(self, count: int) -> Tensor:
        """Random windows."""
        positions, tokens = self.image_shape
        return torch.randint(tokens, (count, positions), generator=torch.Generator().manual_seed(0))

    def blank(self, count: int) -> Tensor:
        """Windows of the first token."""
        return torch.zeros(count, self.image_shape[0], dtype=torch.int64)

    def try_training(self) -> None:
        """Refuse a network that cannot be trained, by one pass and its gradient on two windows.

        Raises:
            ValueError: it fails.
        """
        tokens = self.noise(2).to(next(self.parameters()).device)
        with torch.random.fork_rng(devices=[]), modes_kept(self), torch.enable_grad():
            try:
                self.train().forward(tokens).sum().backward()
            except Exception as error:
                raise ValueError(
                    f"{self.name} cannot be trained: it fails on 2 windows ({first_line(error)}); allowed: a network "
                    "that trains, or backbone.epochs=0."
                ) from error
            finally:
                self.zero_grad(set_to_none=True)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what modules give that run once and give (n, T, d), in running order."""
        positions, _ = self.image_shape
        found: dict[str, tuple[int, ...]] = {}
        runs: dict[str, int] = {}

        def see(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
            runs[name] = runs.get(name, 0) + 1
            if isinstance(output, Tensor) and output.is_floating_point() and output.shape[:-1] == (2, positions):
                found[name] = tuple(output.shape)

        named = [(name, module) for name, module in self.named_modules() if name]
        hooks = [module.register_forward_hook(partial(see, name)) for name, module in named]
        try:
            with torch.no_grad(), evaluating(self):
                self.network(self.noise(2).to(next(self.network.parameters()).device))
        except Exception as error:
            raise ValueError(
                f"{self.name} does not take windows of {positions} tokens ({first_line(error)}); allowed: networks "
                "that take int64 (n, T)."
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        if "network" not in found:
            raise ValueError(
                f"{self.name} gives no features (2, {positions}, d) of 2 windows of {positions} tokens; allowed: a "
                "vector for each position."
            )
        return {name: shape for name, shape in found.items() if runs[name] == 1}

    def _elements(self, shapes: dict[str, tuple[int, ...]]) -> list[str]:
        lists = [(name, part) for name, part in self.network.named_modules() if isinstance(part, nn.ModuleList)]
        names = [f"network.{name}.{child}" for name, part in lists for child, _ in part.named_children()]
        outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
        return [name for name in outer if name in shapes]


def counted(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Features ``(n, T, d)`` and labels ``(n, T)`` of tokens, flat and without the positions that have none (-1); other
    features and labels ``(n,)`` as they are, and so are numbers that outputs are fitted to, ``(n, outputs)``."""
    if labels.ndim == 1 or labels.is_floating_point():
        return features, labels
    known = labels >= 0
    return features[known], labels[known]

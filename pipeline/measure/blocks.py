"""The look at blocks of a network that leave the shape of what enters them as it is: rows of them, and their Jacobians.

What is read of a block's output is what its tap reads: the class token, the mean over tokens or over the positions of a
map; of a text its last token. The Jacobian is by a shift of the same positions of the input, alike at all of them
(ours, for maps and means; for one token it is the paper's). It is exact, in the network's own precision.

A block that normalises what it adds up has the norm's Jacobian on top, which is alike in all blocks: one with a method
`residual_branch`, of the arguments of its `forward`, says what it adds, and J is of that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.data import ImageData
from pipeline.measure.extraction import Place
from pipeline.metrics.engine.block_stack import BlockOfStack, BlockStack
from pipeline.metrics.engine.plan import Plan
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.networks import Backbone
from pipeline.networks.probing import plain_attention
from pipeline.networks.rows import Layout, ordered
from pipeline.networks.taps import Tap
from pipeline.networks.token_backbone import TokenBackbone
from pipeline.runtime.modes import evaluating

CHUNK = 32
"""Backward passes of a block at once."""


@dataclass(frozen=True)
class BlockCall:
    """A block in a pass: what entered it first, its other arguments, and what it gave.

    Attributes:
        layout: of both; span: the tokens that count, of the first axis of positions.
    """

    name: str
    module: nn.Module
    value: Tensor
    others: tuple
    named: Mapping[str, object]
    output: Tensor
    layout: Layout
    span: tuple[int | None, int | None]

    @property
    def width(self) -> int:
        """d."""
        return self.value.shape[self.layout.channel]

    def follows(self, before: BlockCall) -> bool:
        """Whether it gets what that one gave, and reads it alike."""
        same = (self.layout, self.span) == (before.layout, before.span)
        return same and self.value.shape == before.output.shape and torch.equal(self.value, before.output)

    def rows(self, value: Tensor) -> Tensor:
        """What is read of an activation, `(n, d)`."""
        tokens = ordered(value, self.layout)
        return tokens if tokens.ndim == 2 else tokens.flatten(1, -2)[:, slice(*self.span)].mean(1)

    def shifted(self, shift: Tensor) -> Tensor:
        """What entered, all of what is read of it moved by `(n, d)`."""
        tokens = ordered(self.value, self.layout)
        if tokens.ndim > 2:
            positions = tokens.shape[1:-1]
            counts = torch.zeros(positions.numel(), dtype=shift.dtype, device=shift.device)
            counts[slice(*self.span)] = 1
            shift = (shift[:, None] * counts[:, None]).view(len(shift), *positions, -1)
        return (tokens + shift).movedim((0, -1), (self.layout.batch, self.layout.channel))

    @property
    def branch(self) -> Callable[..., Tensor] | None:
        """What the block adds, where it says so itself."""
        return getattr(self.module, "residual_branch", None)

    def adds_its_input(self) -> bool:
        """Whether something of the input comes through where all its matrices are zero, as it does by a skip."""
        blank = {name: torch.zeros_like(it) for name, it in self.module.named_parameters() if it.ndim > 1}
        other = 1.5 * self.value.flip(self.layout.channel)
        with torch.no_grad():
            found = [
                functional_call(self.module, blank, (value, *self.others), dict(self.named))
                for value in (self.value, other)
            ]
        return not torch.allclose(*found, equal_nan=True)

    def jacobians(self) -> Tensor:
        """Of the branch at each sample, `(n, d, d)`, J_ij = d f(x)_i / d x_j."""
        count = self.value.shape[self.layout.batch]
        start, function = self.value.new_zeros(count, self.width), self.branch or self.module
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no batched backward
            # Samples do not see one another in eval mode: a row of all Jacobians is one backward pass.
            found = jacrev(lambda shift: self._summed(function, shift), chunk_size=CHUNK)(start)
        found = found.detach().movedim(0, 1)
        unit = torch.eye(self.width, dtype=found.dtype, device=found.device)
        return found - unit if self.branch is None and self.adds_its_input() else found

    def _summed(self, function: Callable[..., Tensor], shift: Tensor) -> Tensor:
        return self.rows(function(self.shifted(shift), *self.others, **self.named)).sum(0)


Rows = list[list[BlockCall]]
"""Blocks that follow one another, at least two each."""


def rows_of_blocks(backbone: Backbone, inputs: Tensor) -> Rows:
    """Rows of blocks of one shape, each of which enters the next, as they run for standardised images `(n, ...)`.

    Only what has weight matrices is a block; several in a row are looked for among the layers that are measured.
    """
    rows: Rows = []
    for call in _calls(backbone, inputs):
        if rows and call.follows(rows[-1][-1]):
            rows[-1].append(call)
        else:
            rows.append([call])
    return [row for row in rows if len(row) > 1]


def sizes_of_rows(backbone: Backbone) -> list[tuple[int, int]]:
    """L and d of each row, from a pass of noise."""
    with torch.inference_mode(False), evaluating(backbone):
        device = next(backbone.parameters()).device
        found = rows_of_blocks(backbone, backbone.noise(2).to(device))
    return [(len(row), row[0].width) for row in found]


def block_stacks(backbone: Backbone, images: ImageData, settings: MeasureSettings) -> dict[Place, BlockOfStack]:
    """Every block of every row with the Jacobians of all of it, at training images spread over the split; eval mode."""
    total = len(images.train)
    count = min(settings.jacobian_samples, total)
    chosen = torch.arange(count) * total // count
    device = next(backbone.parameters()).device
    found: dict[Place, BlockOfStack] = {}
    with torch.inference_mode(False), evaluating(backbone):
        inputs = images.standardise(images.train.images[chosen.to(images.train.images.device)].to(device))
        for row in rows_of_blocks(backbone, inputs):
            points = [row[0].rows(row[0].value), *(call.rows(call.output) for call in row)]
            jacobians = torch.stack([call.jacobians() for call in row])
            stack = BlockStack(
                jacobians.cpu(), torch.stack(points, 1).cpu(), settings.coupling_rank, images.num_classes
            )
            found |= {(call.name, "post"): BlockOfStack(stack, at) for at, call in enumerate(row)}
    return found


def inputs_of(stacks: Mapping[Place, BlockOfStack], place: Place) -> dict[str, object]:
    """What formulas take of a place: its block, and with the last one of a row the whole row."""
    block = stacks.get(place)
    ends = block is not None and block.at == block.stack.depth - 1
    return {"jacobians": block, "stack": block.stack if ends else None}


def couplings_with(stacks: Mapping[Place, BlockOfStack], place: Place, plan: Plan) -> dict[str, Tensor]:
    """Where all pairs are asked for: m_K(J_l, J_l') with each other block, as ``coupling/with=LAYER/TAP``."""
    block = stacks.get(place)
    if block is None or plan.settings.pairs != "all":
        return {}
    others = {it.at: name for name, it in stacks.items() if it.stack is block.stack and it is not block}
    return {
        f"{metric}/with={'/'.join(name)}": values[block.at, at]
        for metric, values in (("coupling", block.stack.couplings), ("coupling_abs", block.stack.couplings_abs))
        for at, name in others.items()
    }


def told(rows: Sequence[tuple[int, int]], settings: MeasureSettings) -> str:
    """What the look takes, as one line."""
    blocks = " and ".join(f"{depth} blocks of width {width}" for depth, width in rows)
    passes = " and ".join(str(width) for width in dict.fromkeys(width for _, width in rows))
    return f"Jacobians of {blocks} at {settings.jacobian_samples} images: {passes} backward passes of each block"


def _calls(backbone: Backbone, inputs: Tensor) -> list[BlockCall]:
    """The blocks whose outputs have the shape of what enters them, as they run."""
    entered: dict[str, tuple[Tensor, tuple, dict]] = {}
    found: list[BlockCall] = []

    def enter(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            entered[name] = (args[0].detach().clone(), args[1:], kwargs)  # what follows may work in place

    def leave(name: str, module: nn.Module, args: tuple, output: object) -> None:
        tap = backbone.taps.get((name, "post"))
        if name not in entered or tap is None or not isinstance(output, Tensor):
            return
        value, others, kwargs = entered.pop(name)
        layout = tap.read.layout or tap.layout
        if isinstance(layout, Layout) and value.shape == output.shape and value.ndim == layout.ndim:
            span = _span(backbone, tap, layout)
            found.append(BlockCall(name, module, value, others, kwargs, output.detach().clone(), layout, span))

    with torch.no_grad(), plain_attention(), ExitStack() as hooks:
        for name in backbone.blocks:
            module = backbone.get_submodule(name)
            if any(parameter.ndim > 1 for parameter in module.parameters()):
                hooks.callback(module.register_forward_pre_hook(partial(enter, name), with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(partial(leave, name)).remove)
        backbone(inputs)
    return found


def _span(backbone: Backbone, tap: Tap, layout: Layout) -> tuple[int | None, int | None]:
    way = tap.read.way
    if isinstance(backbone, TokenBackbone) or way == "last":
        return -1, None
    if way == "cls":
        return 0, 1
    return layout.tokens if way == "auto" else (None, None)

"""Which axis of an activation holds samples, which channels, and which tokens count: found by trying the network.

The evidence, strongest first:

1. Passes with two and with three samples: the axis that follows is that of the samples.
2. A pass with inputs of another size, where the network takes them: axes that follow are positions.
3. The modules that make the activation: convolutions and batch norms have their channels second, linear layers and
   layer norms last; believed where they agree, and where the axis is as long as they say.
4. The width of the module that made it or gets it, where one axis only is so long; timm's mark (`output_fmt`).

What stays open is `Unclear`. Of a sequence of tokens, those count that what follows the last sequence of that length
reads: tried by changing them (`pipeline.networks.tokens`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from pipeline.networks.probing import Inputs, Run, Trial, leaving_no_trace, tried
from pipeline.networks.reading import shape_words
from pipeline.networks.rows import Layout, Unclear
from pipeline.networks.tokens import TokenSlice, tokens_read

Spot = tuple[str, str]
"""(module, "pre" or "post")."""

SECOND = (_ConvNd, _BatchNorm, _InstanceNorm, nn.GroupNorm)
LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
WIDTHS_OUT = ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim", "embed_dim")
WIDTHS_IN = ("in_features", "in_channels", "num_features", "num_channels", "input_size", "embed_dim")


def find_layouts(
    model: nn.Module, spots: Mapping[Hashable, Spot], inputs: Inputs | None, masks: Mapping[Hashable, Tensor | None]
) -> dict[Hashable, Layout | Unclear]:
    """The layout of what enters or leaves modules of a network that takes these inputs.

    The network is tried on up to three of the samples, in eval mode and without a trace. Of a module that runs several
    times the last run counts.

    Args:
        masks: which tokens of which sample count, `(N, T)`, where that is known.
    """
    if inputs is None or not spots:
        return dict.fromkeys(spots, Unclear("and no sample is at hand to find out which axis is which"))
    search = _Search(model, inputs)
    with leaving_no_trace(model):
        found = {key: search.layout(*spot) for key, spot in spots.items()}
        return {key: search.with_tokens(layout, *spots[key], masks.get(key)) for key, layout in found.items()}


@dataclass(frozen=True)
class _Weighted:
    """A run of a module with weights: where it has its channels, and how many."""

    run: Run
    second: bool | None
    width_in: int | None
    width_out: int | None


class _Search:
    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.model, self.inputs, self.few = model, inputs, inputs.chosen(range(2))
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.names: dict[nn.Module, str] = {}
        for name, module in self.modules.items():
            self.names.setdefault(module, name)
        self._trials: dict[str, Trial | None] = {}
        self._of_other_sizes: list[Trial] | None = None
        self._weighted: list[_Weighted] | None = None
        self._read: dict[tuple[tuple[int, int, int], bool], TokenSlice | str] = {}

    def layout(self, name: str, side: str) -> Layout | Unclear:
        """Without regard to which tokens count."""
        two, three = self._shape("two", name, side), self._shape("three", name, side)
        if two is None:
            return Unclear("and the network could not be tried on samples of the batch")
        batch = _batch_axis(two, three, self.few.count)
        if isinstance(batch, Unclear):
            return batch
        axes = [axis for axis in range(len(two)) if axis != batch]
        if len(axes) == 1:
            return Layout(batch, axes[0], 2)
        still = self._still(name, side, two, axes)
        channel = self._channel(name, side, two, batch, still)
        if channel is None:
            shape = shape_words(("N", *two[1:]) if batch == 0 else two)
            return Unclear(f"and nothing tells which axis of {shape} holds the channels")
        return Layout(batch, channel, len(two))

    def with_tokens(self, layout: Layout | Unclear, name: str, side: str, mask: Tensor | None) -> Layout | Unclear:
        """The same with the tokens that count, if it is a sequence of tokens."""
        if isinstance(layout, Unclear) or layout.ndim != 3 or layout.channel != 2:
            return layout
        axis = layout.positions[0]
        key = (layout.batch, axis, self._shape("two", name, side)[axis])
        mask = mask if mask is not None and mask.shape == (self.inputs.count, key[2]) else None
        if (key, mask is None) not in self._read:
            last = self._last_sequence(key)
            read = tokens_read(self.model, self.inputs, self.names, layout, key[2], last, mask)
            self._read[key, mask is None] = read
        read = self._read[key, mask is None]
        return Unclear(read) if isinstance(read, str) else replace(layout, tokens=read)

    def _last_sequence(self, key: tuple[int, int, int]) -> str | None:
        """The last module that gives tokens of this number; None if that is the network itself."""
        batch, axis, length = key
        for run in reversed(self._trial("two").in_order):
            if (
                run.gave is not None
                and len(run.gave) == 3
                and run.gave[batch] == self.few.count
                and run.gave[axis] == length
            ):
                return run.name or None
        return None

    def _trial(self, kind: str) -> Trial | None:
        if kind not in self._trials:
            self._trials[kind] = None
            # Should it not take two samples, all that there are: then only the axis of samples can be told.
            for inputs in [self.few, self.inputs] if kind == "two" else [self.inputs.chosen(range(3))]:
                with suppress(Exception):
                    self._trials[kind] = tried(self.model, inputs, self.names)
                    self.few = inputs if kind == "two" else self.few
                    break
        return self._trials[kind]

    def _resized(self) -> list[Trial]:
        """Passes with inputs of other sizes, of each way of changing them the first that works."""
        if self._of_other_sizes is None:
            self._of_other_sizes = []
            for sizes in self.few.of_other_sizes():
                self._of_other_sizes += islice(self._working(sizes), 1)
        return self._of_other_sizes

    def _working(self, variants: list[Inputs]) -> Iterator[Trial]:
        for inputs in variants:
            with suppress(Exception):
                trial = tried(self.model, inputs, self.names)
                yield trial

    def _run(self, trial: Trial | None, name: str) -> Run | None:
        runs = [] if trial is None else trial.runs.get(self.names[self.modules[name]], [])
        return runs[-1] if runs else None

    def _shape(self, kind: str, name: str, side: str) -> tuple[int, ...] | None:
        return _of_side(self._run(self._trial(kind), name), side)

    def _still(self, name: str, side: str, shape: tuple[int, ...], axes: list[int]) -> list[int]:
        """Those of the axes that are as long for inputs of other sizes; all of them if that says nothing."""
        found = []
        for trial in self._resized():
            other = _of_side(self._run(trial, name), side)
            if other is not None and len(other) == len(shape):
                found.append([axis for axis in axes if other[axis] == shape[axis]])
        # Two ways that both work (a network that does the same to all numbers of a sequence) say nothing; nor does one
        # that changes nothing (a network that brings every map to one size).
        if not found or (len(found) > 1 and len(shape) == 3) or len(found[0]) == len(axes):
            return axes
        return found[0]

    def _channel(self, name: str, side: str, shape: tuple[int, ...], batch: int, axes: list[int]) -> int | None:
        if len(axes) == 1:
            return axes[0]
        inside, before, after = self._around(name, side)
        widths = [near.width_out for near in before] + [near.width_in for near in after]
        if side == "post" and inside:
            widths.insert(0, inside[-1].width_out)
        elif side == "pre" and inside:
            widths.insert(0, inside[0].width_in)
        widths = [width for width in widths if width is not None]
        for group in (inside, [] if inside else self._all_weighted()):
            axis = _agreed(group, len(shape), batch)
            alike = [other for other in axes if widths and shape[other] == widths[0]]
            if axis in axes and (not alike or axis in alike):
                return axis
        for width in widths:
            alike = [axis for axis in axes if shape[axis] == width]
            if len(alike) == 1:
                return alike[0]
        marked = self._mark(name, len(shape))
        longer = [axis for axis in axes if shape[axis] > 1]
        return marked if marked in axes else (longer[0] if len(longer) == 1 else None)

    def _around(self, name: str, side: str) -> tuple[list[_Weighted], list[_Weighted], list[_Weighted]]:
        """Runs of modules with weights within a module's run, the last before and the first after the activation."""
        run = self._run(self._trial("two"), name)
        everything = self._all_weighted()
        inside = [near for near in everything if run.began <= near.run.began and near.run.ended <= run.ended]
        moment = run.began if side == "pre" else run.ended
        before = [near for near in everything if near.run.ended < moment and near not in inside]
        after = [near for near in everything if near.run.began > moment]
        return inside, before[-1:], after[:1]

    def _all_weighted(self) -> list[_Weighted]:
        if self._weighted is None:
            modules = {name: module for module, name in self.names.items()}
            runs = self._trial("two").in_order
            self._weighted = [_weighted(run, modules[run.name]) for run in runs if isinstance(modules[run.name], KNOWN)]
        return self._weighted

    def _mark(self, name: str, ndim: int) -> int | None:
        """The axis that timm says maps have their channels on, of the closest module around that has the mark."""
        parts = name.split(".")
        while ndim == 4 and parts:
            parts.pop()
            mark = getattr(self.modules.get(".".join(parts)), "output_fmt", None)
            mark = str(getattr(mark, "value", mark))
            if mark in ("NHWC", "NCHW"):
                return mark.index("C")
        return None


KNOWN = (*SECOND, *LAST)


def _of_side(run: Run | None, side: str) -> tuple[int, ...] | None:
    return None if run is None else (run.given if side == "pre" else run.gave)


def _batch_axis(two: tuple[int, ...], three: tuple[int, ...] | None, count: int) -> int | Unclear:
    """From the shapes for two (or for `count`) and for three samples."""
    if three is None or len(three) != len(two) or count != 2:
        return 0 if two[0] == count else Unclear("and its axis of samples could not be found", has_rows=False)
    moved = [axis for axis, (size, other) in enumerate(zip(two, three, strict=True)) if size != other]
    if len(two) < 2 or len(moved) != 1:
        return Unclear(
            f"and {'no axis of it' if not moved else 'more than one axis of it'} holds the samples",
            has_rows=False,
        )
    size, other = two[moved[0]], three[moved[0]]
    if (size, other) != (2, 3):
        folded = f"{size // 2} rows for each sample (windows or tokens) folded into its axis of samples"
        return Unclear(f"with {folded}", has_rows=False)
    return moved[0]


def _weighted(run: Run, module: nn.Module) -> _Weighted:
    second: bool | None = isinstance(module, SECOND)
    if isinstance(module, nn.LayerNorm) and "2d" in type(module).__name__.lower():
        second = None  # of maps, in either layout
    return _Weighted(run, second, _width(module, WIDTHS_IN), _width(module, WIDTHS_OUT))


def _width(module: nn.Module, names: tuple[str, ...]) -> int | None:
    if isinstance(module, nn.RNNBase) and names is WIDTHS_OUT:
        return (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)
    shape = getattr(module, "normalized_shape", None)
    if shape:
        return shape[-1] if len(shape) == 1 else None
    return next((getattr(module, name) for name in names if isinstance(getattr(module, name, None), int)), None)


def _agreed(group: list[_Weighted], ndim: int, batch: int) -> int | None:
    """The axis of channels on which all modules agree that work on as many axes."""
    votes = {near.second for near in group if near.run.gave is not None and len(near.run.gave) == ndim}
    if votes == {True} and batch == 0:
        return 1
    return ndim - 1 if votes == {False} else None

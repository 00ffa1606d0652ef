"""How an activation becomes rows of features: `Reading` says what is wanted, `Layout` which axis of it is which.

A layout is found by trying the network (`pipeline.networks.probing`), or given by the reading itself (``nhwc``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.metrics.engine.unit_counts import OTHERS
from pipeline.networks.rows import Layout, Rows, Unclear, counted, each_position, fitting, made_of, ordered

AUTO = "auto"
WAYS = ("mean", "cls", "last", "flatten", "positions")
AXES = "nchwdltb"
"""Letters of a layout: n samples, c channels, the others positions of any kind."""
READINGS = "mean, cls, last, flatten, positions, a layout such as nhwc or ncl, both (nhwc+positions)"
ALLOWED = f"{READINGS}, or a function"
ATTENTION_MASK = "attention_mask"
"""The argument of a network that is taken for the mask of its tokens unless another is named."""

Mask = str | Callable[..., Tensor]


@dataclass(frozen=True)
class Reading:
    """What rows are made of an activation.

    Args:
        how: ``auto``, the default, averages over the positions that what follows reads; ``mean`` over all of them;
            ``cls`` and ``last`` take the first or the last token; ``flatten`` puts all positions side by side in one
            row; ``positions`` makes a row of each token or pixel, with the label of its sample. A layout (``nhwc``,
            ``ncl``, ``tnc``: n samples, c channels, other letters positions) says which axis is which instead of
            finding it out, by itself or before one of these (``nhwc+positions``). A function takes what the module
            gives, tuples and dicts too, and returns `(N, d)`, or `(N, P, d)` for P rows of each sample.
        mask: where tokens may be padding: the name of an argument of the model (or of an entry of a dict that it
            takes), or a function of its arguments; `(N, T)`, true for tokens that count, or, if ``padding`` is a part
            of the name, for those that do not. A model's argument ``attention_mask`` is used without being named.

    Raises:
        ValueError: for anything else.
    """

    how: str | Callable[[object], Tensor] = AUTO
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and not isinstance(self.mask, str) and not callable(self.mask):
            raise ValueError(f"mask must be the name of an argument of the model or a function, got {self.mask!r}.")
        if callable(self.how):
            return
        words = self.how.split("+") if isinstance(self.how, str) else []
        layouts = [word for word in words if _is_layout(word)]
        ways = [word for word in words if word in (AUTO, *WAYS)]
        if not words or len(layouts) + len(ways) < len(words) or len(layouts) > 1 or len(ways) > 1:
            raise ValueError(f"an activation cannot be read as {self.how!r}; allowed: {ALLOWED}.")

    @classmethod
    def of(cls, value: Reading | str | Callable[[object], Tensor]) -> Reading:
        """What was given as a reading, or as how to read."""
        return value if isinstance(value, Reading) else cls(value)

    @cached_property
    def way(self) -> str:
        """One of `WAYS`, `AUTO`, or "function"."""
        if callable(self.how):
            return "function"
        return next((word for word in self.how.split("+") if not _is_layout(word)), "mean")

    @cached_property
    def layout(self) -> Layout | None:
        """The axes, if they are given."""
        words = [] if callable(self.how) else [word for word in self.how.split("+") if _is_layout(word)]
        return Layout(words[0].index("n"), words[0].index("c"), len(words[0])) if words else None

    @property
    def needs_layout(self) -> bool:
        """Whether the axes have to be found out."""
        return not callable(self.how) and self.layout is None

    def rows(self, value: object, layout: Layout | Unclear, mask: Tensor | None = None) -> Rows:
        """The rows of an activation.

        Args:
            layout: of its axes; not looked at if the reading itself says which they are.
            mask: `(N, T)`, the tokens that count.

        Raises:
            ValueError: it cannot be read this way; the text ends a sentence.
        """
        if callable(self.how):
            return _of_function(self.how(value))
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
            raise ValueError(f"gives {described(value)}, which is not numbers (N, ..., d)")
        value, layout = value.detach(), self.layout or layout
        if isinstance(layout, Unclear):
            if (self.way != "flatten" and value.ndim > 2) or not layout.has_rows:
                raise ValueError(f"gives {tuple(value.shape)}, {layout.why}")
            layout = Layout(0, 1, value.ndim)
        if layout.ndim != value.ndim:
            raise ValueError(f"gives {tuple(value.shape)}, but is read as {layout.ndim} axes")
        if mask is not None and self.mask is not None and fitting(mask, ordered(value, layout)) is None:
            raise ValueError(f"gives {tuple(value.shape)}, to which the mask {tuple(mask.shape)} does not fit")
        return made_of(value, layout, self.way, mask)

    def units(self, value: object, layout: Layout | Unclear | None, mask: Tensor | None = None) -> Tensor | None:
        """`unit_counts` of each sample, `(N, C + 68)`, of an activation that these rows are made of.

        None where the entries of the rows are the units themselves, NaN where a function makes the rows.
        """
        if self.way == "function" and isinstance(value, Tensor) and value.ndim > 1:
            return torch.full((len(value), 1 + OTHERS), float("nan"), dtype=torch.float64, device=value.device)
        layout = self.layout or layout
        if self.way in ("flatten", "positions", "function") or not isinstance(layout, Layout):
            return None
        return counted(value.detach(), layout, mask)

    def description(self, shape: tuple[int, ...] | None, layout: Layout | Unclear | None) -> str:
        """What is read of an activation of this shape, in words."""
        layout = self.layout or layout
        if self.way == "function":
            return "what a function makes of it"
        if isinstance(layout, Unclear) or layout is None or shape is None or len(shape) != layout.ndim:
            return self.way
        if layout.ndim == 2:
            return "vectors"
        sizes = [shape[axis] for axis in layout.positions]
        kind = "tokens" if len(sizes) == 1 else "positions"
        open_shape = shape_words(tuple("N" if axis == layout.batch else size for axis, size in enumerate(shape)))
        all_of_them = f"{' x '.join(map(str, sizes))} {kind}, channels on axis {layout.channel} of {open_shape}"
        start, stop = layout.tokens if self.way == AUTO else (None, None)
        if self.way == "cls" or (start, stop) == (0, 1):
            return f"class token of {all_of_them}"
        if self.way == "last" or (start, stop) == (-1, None):
            return f"last token of {all_of_them}"
        if self.way in ("flatten", "positions"):
            return f"{'all in one row' if self.way == 'flatten' else 'a row each'}: {all_of_them}"
        if start:
            return f"mean without the first {start} of {all_of_them}"
        if stop:
            return f"mean of the first {stop} of {all_of_them}"
        return f"mean of {all_of_them}"


class Unreadable(ValueError):
    """What enters or leaves a module cannot be read as rows: `module`, `side`, and `why`, which ends a sentence."""

    def __init__(self, module: str, side: str, why: str) -> None:
        self.module, self.side, self.why = module, side, why
        name = repr(module or "the module itself")
        super().__init__(
            f"layer {name} ({side}) {why}: pass read={{{module!r}: 'nhwc'}}, {{{module!r}: lambda output: output[0]}} "
            f"or the like; allowed: {ALLOWED}."
        )


def shape_words(shape: tuple[int | str, ...]) -> str:
    """A shape, some axes of which may be letters."""
    return f"({', '.join(map(str, shape))})"


def described(value: object) -> str:
    """What a module gave, in a message."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def mask_of(mask: Mask | None, module: nn.Module, args: tuple, kwargs: Mapping[str, object]) -> Tensor | None:
    """The mask of a call of the module, `(N, T)` bool, true for tokens that count; None if there is none.

    Raises:
        ValueError: there is no argument of this name, or what is there is no mask.
    """
    if callable(mask):
        found, inverted = mask(*args, **kwargs), False
    else:
        name = mask or ATTENTION_MASK
        found, inverted = _argument(name, module, args, kwargs), "padding" in name
        if mask is None and not (isinstance(found, Tensor) and found.ndim == 2):
            return None
    if not isinstance(found, Tensor) or found.ndim != 2:
        given = f"mask={mask!r}" if isinstance(mask, str) else "the function given as mask"
        raise ValueError(f"{given} finds {described(found)} instead of a mask (N, T).")
    return (found == 0) if inverted else (found != 0)


def _argument(name: str, module: nn.Module, args: tuple, kwargs: Mapping[str, object]) -> object:
    try:
        bound = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = {}
    places = [kwargs, bound, *(value for value in (*args, *kwargs.values()) if isinstance(value, Mapping))]
    return next((place[name] for place in places if name in place), None)


def _is_layout(word: str) -> bool:
    letters = set(word)
    return len(word) > 1 and len(letters) == len(word) and {"n", "c"} <= letters <= set(AXES)


def _of_function(found: object) -> Rows:
    if isinstance(found, Rows):
        return found
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim not in (2, 3):
        raise ValueError(f"is read by a function that returns {described(found)} instead of (N, d) or (N, P, d)")
    found = found.detach()
    if found.ndim == 3:
        return each_position(found, None)
    # It may have pooled the units, so that nobody can count them any more.
    return Rows(found, None, torch.full((len(found),), float("nan"), dtype=torch.float64, device=found.device))

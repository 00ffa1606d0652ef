"""Which tokens of a sequence the rest of a network reads: changed one by one, does its output change?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.networks.probing import Inputs, tried
from pipeline.networks.rows import Layout

TokenSlice = tuple[int | None, int | None]

PREFIX = 6
"""So many of the first tokens are changed one by one, for class and register tokens stand there; more where timm says
that there are more (`num_prefix_tokens`)."""
CHANGE = 5.0
"""By how many standard deviations of the sequence."""
ALL: TokenSlice = (None, None)


def tokens_read(
    model: nn.Module,
    inputs: Inputs,
    names: Mapping[nn.Module, str],
    layout: Layout,
    length: int,
    last: str | None,
    mask: Tensor | None,
) -> TokenSlice | str:
    """Start and stop of the tokens that what follows a module reads; why there is none, as the end of a sentence.

    Within `pipeline.networks.probing.leaving_no_trace`.

    Args:
        layout: of a sequence of this length.
        last: the module that gives it; None if nothing follows it.
        mask: which tokens count, `(N, length)`, if that is known.
    """
    if last is None or length == 1:
        return ALL
    sets = _sets(length, max((getattr(part, "num_prefix_tokens", 0) or 0 for part in model.modules()), default=0))
    numbers = [sample % inputs.count for sample in range(2)]
    samples = [inputs.chosen([number]) for number in numbers]
    try:
        flags = [_flags(model, sample, names, layout, last, sets) for sample in samples]
        if not any(map(any, flags)):  # a new head of zeros hides what it reads
            heads = [part for part in model.modules() if isinstance(part, nn.Linear) and not part.weight.any()]
            flags = [_flags(model, sample, names, layout, last, sets, heads) for sample in samples]
    except Exception:  # it does not take copies of one sample, say; then nothing speaks against the mean
        return ALL
    if not any(map(any, flags)):
        return ALL
    if flags[0] == flags[1]:
        return _as_slice(sets, flags[0])
    if mask is not None and all(
        _is_masked(sets, own, mask[number]) for own, number in zip(flags, numbers, strict=True)
    ):
        return ALL
    return "and what follows reads other tokens of one sample than of another (if there is padding, name its mask)"


def _sets(length: int, prefix: int) -> list[list[int]]:
    """Tokens that are changed one by one, and all others together."""
    singles = {*range(min(max(PREFIX, prefix + 1), length)), length // 3, length // 2, max(0, length - 2), length - 1}
    rest = [token for token in range(length) if token not in singles]
    return [[token] for token in sorted(singles)] + ([rest] if rest else [])


def _flags(
    model: nn.Module,
    sample: Inputs,
    names: Mapping[nn.Module, str],
    layout: Layout,
    last: str,
    sets: list[list[int]],
    heads: Sequence[nn.Module] = (),
) -> list[bool]:
    """Whether the network's output for a sample, or what enters `heads`, changes with each of these sets of its
    tokens."""
    copies = sample.chosen([0] * len(sets))
    entered: list[Tensor] = []
    with ExitStack() as hooks:
        for head in heads:
            watch = head.register_forward_pre_hook(lambda _, args: entered.append(args[0].clone()))
            hooks.callback(watch.remove)
        plain = tried(model, copies, {}).outputs + entered
        entered.clear()
        changed = tried(model, copies, names, (last, partial(_changed, layout, sets))).outputs + entered
    return _differing(plain, changed, len(sets))


def _changed(layout: Layout, sets: list[list[int]], output: Tensor) -> Tensor:
    """The sequence of copies of one sample, in each of which other tokens are changed."""
    values = output.clone()
    tokens = values.movedim((layout.batch, layout.channel), (0, -1))
    noise = torch.randn(tokens.shape[-1], generator=torch.Generator().manual_seed(0)).to(values)
    scale = CHANGE * (values.float().std() + 1e-3).to(values.dtype)
    for copy, chosen in enumerate(sets):
        tokens[copy, chosen] += scale * noise
    return values


def _differing(plain: list[Tensor], changed: list[Tensor], count: int) -> list[bool]:
    found = [False] * count
    for before, after in zip(plain, changed, strict=True):
        axis = next((axis for axis, size in enumerate(before.shape) if size == count), None)
        if axis is None or before.shape != after.shape:
            continue
        before, after = (value.movedim(axis, 0).flatten(1).double() for value in (before, after))
        moved = ((after - before).abs() > 1e-6 * before.abs().max()).any(1)
        found = [old or new for old, new in zip(found, moved.tolist(), strict=True)]
    return found


def _as_slice(sets: list[list[int]], flags: list[bool]) -> TokenSlice | str:
    read = [token for chosen, flag in zip(sets, flags, strict=True) if flag for token in chosen]
    length = sum(map(len, sets))
    if sorted(read) == list(range(min(read), length)):  # from some token on
        return ALL if len(read) == length else (min(read) - (length if len(read) == 1 else 0), None)
    if sorted(read) == list(range(len(read))):
        return (0, len(read))
    return "of whose tokens what follows reads some that are neither the first, nor the last, nor all but the first"


def _is_masked(sets: list[list[int]], flags: list[bool], mask: Tensor) -> bool:
    """Whether just the tokens of the mask are read, as far as it can be told."""
    return all(bool(mask[chosen].any()) == flag for chosen, flag in zip(sets, flags, strict=True))

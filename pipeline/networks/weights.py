"""Weights of a backbone from files: state dicts of many origins, and of runs of this pipeline."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from pipeline.networks.backbone import Backbone
from pipeline.networks.weight_files import named_tensors
from pipeline.runtime.suggestions import did_you_mean

CLASSIFIERS = frozenset(
    (
        "fc",
        "head",
        "heads",
        "head_dist",
        "classifier",
        "classif",
        "linear",
        "last_linear",
        "output",
        "logits",
        "weights",
    )
)
"""First parts of the names of what sits on a backbone."""


SHOWN_PREFIXES = 12

BESIDE = frozenset(("criterion", "loss", "loss_fn", "loss_func", "n_averaged"))
"""First parts of the names of what stands beside a network in a training program."""

NUM_SHOWN = 3


def load_weights(
    backbone: Backbone, path: Path, key: str = "backbone.checkpoint", prefix: str | None = None
) -> list[str]:
    """Load the weights in a file into a backbone, on whatever device it is, and return what was left out.

    The file is a `.safetensors`, or what `torch.save` writes: tensors by name, in dicts within dicts. The network's own
    names stand in it after some prefix ("state_dict.model.", "module._orig_mod.", "teacher.", none), which is found:
    the one under which all of the network is there. Of several, none is obvious, unless they hold the same numbers.
    What stands outside the prefix, and the tensors of a classifier that the network does not have, are left out; the
    counters `num_batches_tracked` may be missing; everything else has to be there, of the right shape and finite.
    Values are converted to the network's dtype.

    Args:
        key: the setting that named the file, for messages.
        prefix: the prefix, if it is known, with or without its last dot.

    Returns:
        What was left out, a few names or groups of them; the heads that a run of this pipeline keeps beside its
        backbone (`head/1`), and the state of an optimizer, are not told.

    Raises:
        ValueError: in one sentence starting with `key=path`, if the file cannot be read, holds more than tensors and
            plain containers, or does not fit. The backbone is then unchanged.
    """
    held = {name: value for name, value in named_tensors(path, key).items() if not re.fullmatch(r"head/\d+", name)}
    wanted = {name: value for name, value in backbone.network.state_dict().items() if isinstance(value, Tensor)}
    chosen = prefix_of(backbone, held, f"{key}={path}", prefix)
    under = {name.removeprefix(chosen): value for name, value in held.items() if name.startswith(chosen)}
    found = {name: value for name, value in under.items() if name in wanted}
    extra = [name for name in under if name not in wanted]
    unknown = [name for name in extra if not _is_beside(name)]
    problems = _mismatches(found, wanted, unknown)
    if problems:
        more = f" (and {len(problems) - NUM_SHOWN} more)" if len(problems) > NUM_SHOWN else ""
        raise ValueError(
            f"{key}={path} does not fit {backbone.name}: {'; '.join(problems[:NUM_SHOWN])}{more}; "
            "allowed: the weights of the same network."
        )
    # Converted before they are checked: what is finite in float64 need not be so in float32.
    found = {name: tensor.to(wanted[name].dtype) for name, tensor in found.items()}
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        more = f" and {len(broken) - NUM_SHOWN} more" if len(broken) > NUM_SHOWN else ""
        raise ValueError(
            f"{key}={path} holds NaN or infinity in {', '.join(broken[:NUM_SHOWN])}{more}; allowed: finite weights."
        )
    backbone.network.load_state_dict(found, strict=False)
    # The dict that a training program keeps all weights in is not told.
    wrapper = match[0] if (match := re.match(r"(model_)?state_dict\.", chosen)) else ""
    beside = [name.removeprefix(wrapper) for name in held if not name.startswith(chosen)]
    return [f"{chosen.removeprefix(wrapper)}{name}" for name in extra] + _groups(beside)


def prefix_of(backbone: Backbone, held: Mapping[str, Tensor], named: str, prefix: str | None = None) -> str:
    """What the network's own names stand after among those of a file, with its last dot.

    Args:
        named: the setting and the file, for messages.
        prefix: the prefix, if it is known.

    Raises:
        ValueError: it is not there, or none is obvious.
    """
    if prefix:
        return _given(held, prefix, named)
    wanted = {name: value for name, value in backbone.network.state_dict().items() if isinstance(value, Tensor)}
    return _obvious(held, wanted, named)


def _given(held: Mapping[str, Tensor], prefix: str, named: str) -> str:
    """A prefix that was asked for, with its dot."""
    asked = prefix if prefix.endswith(".") else f"{prefix}."
    # What wraps all of it ("state_dict.") need not be said.
    matching = sorted({name[: name.index(asked) + len(asked)] for name in held if f".{name}".find(f".{asked}") >= 0})
    if not matching:
        known = list(dict.fromkeys(name.rpartition(".")[0].split(".")[0] for name in held if "." in name))
        raise ValueError(
            f"{named} holds nothing under backbone.checkpoint_prefix={prefix}{did_you_mean(prefix, known)}; "
            f"allowed: {_shown(known)}."
        )
    return min(matching, key=len)


def _obvious(held: Mapping[str, Tensor], wanted: Mapping[str, Tensor], named: str) -> str:
    """The prefix under which the network is meant.

    Raises:
        ValueError: it stands under several in different states, or parts of it do and no prefix has most.
    """
    needed = {name for name in wanted if not name.endswith("num_batches_tracked")}
    names: dict[str, set[str]] = {"": set()}  # prefix -> names of the network's under it
    for name in held:
        for own in _endings(name):
            if own in wanted:
                names.setdefault(name.removesuffix(own), set()).add(own)
    fitting = {
        prefix: {own for own in found if held[prefix + own].shape == wanted[own].shape}
        for prefix, found in names.items()
    }
    whole = [prefix for prefix, found in fitting.items() if needed <= found]
    if "" in whole:
        return ""
    different = [
        prefix for prefix in whole if any(not held[prefix + own].equal(held[whole[0] + own]) for own in needed)
    ]
    if different:
        raise ValueError(
            f"{named} holds the network several times, under {_shown([prefix.rstrip('.') for prefix in whole])}; "
            "allowed: backbone.checkpoint_prefix=PREFIX, one of them."
        )
    if whole:
        return whole[0]

    def closeness(prefix: str) -> tuple[int, int]:
        return len(names[prefix]), len(fitting[prefix])

    ranked = sorted(names, key=closeness, reverse=True)
    if len(ranked) > 1 and closeness(ranked[0]) == closeness(ranked[1]) and names[ranked[0]]:
        tied = [prefix.rstrip(".") or "(none)" for prefix in ranked if closeness(prefix) == closeness(ranked[0])]
        raise ValueError(
            f"{named} holds parts of the network under several prefixes, {_shown(tied)}, and all of it under none; "
            "allowed: the weights of the same network, if need be with backbone.checkpoint_prefix=PREFIX."
        )
    return ranked[0]


def _endings(name: str) -> Iterator[str]:
    """All endings of a name at its dots, the whole name first: "a.b.c", "b.c", "c"."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _is_beside(name: str) -> bool:
    """Whether a tensor belongs to a classifier, or to a part of a training program, and not to the network."""
    return re.split(r"[./]", name)[0] in CLASSIFIERS | BESIDE


def _groups(names: Sequence[str]) -> list[str]:
    """A few names as they are, many of a kind as one group: `ema.* (122 tensors)`; an optimizer's state as none."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0], []).append(name)
    told = []
    for first, members in groups.items():
        if not first.startswith("optimizer"):
            told += members if len(members) <= NUM_SHOWN else [f"{first}.* ({len(members)} tensors)"]
    return told


def _shown(names: Sequence[str]) -> str:
    """Up to a dozen names."""
    return ", ".join(names[:SHOWN_PREFIXES]) + (", ..." if len(names) > SHOWN_PREFIXES else "")


def _mismatches(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], unknown: list[str]) -> list[str]:
    """What is wrong with each tensor, in words: first other shapes, then names of the file, then of the network."""
    problems = []
    for name, tensor in found.items():
        want = wanted[name]
        if tensor.shape != want.shape:
            shapes = tuple(tensor.shape), tuple(want.shape)
            problems.append(f"{name} is {shapes[0]} in the file and {shapes[1]} in the network")
        elif tensor.is_floating_point() != want.is_floating_point() or tensor.is_complex() != want.is_complex():
            kinds = [str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, want.dtype)]
            problems.append(f"{name} is {kinds[0]} in the file and {kinds[1]} in the network")
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    problems += [f"{name} is not in the network" for name in unknown]
    return problems + [f"{name} is missing in the file" for name in missing]

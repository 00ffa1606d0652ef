"""What a checkpoint holds beside the network: the linear classifier it was trained under, and how far training was."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pipeline.networks.backbone import Backbone
from pipeline.networks.weight_files import named_numbers, named_tensors
from pipeline.networks.weights import prefix_of

POSITIONS = {
    "epoch": ("epoch", "epochs", "epochs_done", "last_epoch"),
    "step": ("global_step", "step", "steps", "iteration", "iter", "it", "num_updates"),
}
"""What training programs call how far they are, by our unit; the first that stands in a file counts."""


def classifier_in(
    backbone: Backbone, path: Path, num_classes: int, key: str = "backbone.checkpoint", prefix: str | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """The weight ``(K, d)`` and bias ``(K,)`` (or None) of the classifier that a file holds beside the network.

    It is a tensor of that shape called ``...weight`` that the network does not have, the only one under the prefix of
    the network's own names or, if there is none, under what this prefix begins with; None if there is none, or several.

    Args:
        key, prefix: as of `pipeline.networks.load_weights`, which has accepted the file.
    """
    held = named_tensors(path, key)
    chosen = prefix_of(backbone, held, f"{key}={path}", prefix)
    own = {f"{chosen}{name}" for name in backbone.network.state_dict()}
    shape = (num_classes, backbone.num_features)
    fitting = [
        name
        for name, value in held.items()
        if name not in own and tuple(value.shape) == shape and re.search(r"(^|\.)weight$|^head/1$", name)
    ]
    if any(re.fullmatch(r"head/[2-9]\d*", name) for name in held):
        fitting = [name for name in fitting if name != "head/1"]  # the first matrix of a deeper head
    while True:
        found = [name for name in fitting if name.startswith(chosen)]
        if found or not chosen:
            break
        chosen = chosen[: chosen.rstrip(".").rfind(".") + 1]
    if len(found) != 1:
        return None
    bias = held.get(re.sub("weight$", "bias", found[0])) if found[0].endswith("weight") else None
    return held[found[0]], bias if bias is not None and tuple(bias.shape) == (num_classes,) else None


def position_in(path: Path, key: str) -> dict[str, int]:
    """How far the training was that wrote a file: ``epoch`` and ``step``, each if the file says it, or else its name
    (``epoch=3-step=120.ckpt``)."""
    numbers, found = named_numbers(path, key), {}
    for unit, names in POSITIONS.items():
        said = next((numbers[name] for name in names if name in numbers), None)
        named = re.search(rf"{unit}s?[=_-]?(\d+)", path.stem.lower())
        if said is not None or named:
            found[unit] = int(named[1]) if said is None else said
    return found


def naturally(path: Path) -> list[tuple[int, str]]:
    """Sorts ``net_9.pt`` before ``net_10.pt``."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def axis_of(positions: list[Mapping[str, int]]) -> tuple[str, list[int]]:
    """What several checkpoints count, and where each stands: epochs if all tell theirs and no two are alike, else
    steps, else their numbers 1, 2, ..."""
    for unit in ("epoch", "step"):
        told = [position[unit] for position in positions if unit in position]
        if len(told) == len(positions) == len(set(told)) and min(told) >= 0:
            return unit, told
    return "checkpoint", list(range(1, len(positions) + 1))

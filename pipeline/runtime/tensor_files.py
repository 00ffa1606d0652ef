"""Files of tensors that are found again: safetensors with a story in its metadata, under a key, with a SHA-256 of both.

A file is written whole or not at all. One that is damaged is noticed, named, and counts as none.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

log = logging.getLogger(__name__)

STORY = "stage"
"""Name of the metadata: plain facts that belong to the tensors, among them the key."""

Kept = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and the story that goes with them."""


def serialised(tensors: dict[str, Tensor], story: dict[str, Any]) -> bytes:
    """The content of a file; ``story["key"]`` is what it depends on."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # Under one name, because safetensors writes several in any order, and equal runs leave equal files.
    return save(tensors, {STORY: json.dumps(story | {"sha256": _digest(tensors, story)})})


def read(path: Path, key: str, otherwise: str, check: Callable[[dict[str, Any]], object]) -> Kept | None:
    """What was kept under ``key``; None if nothing was, or it is damaged, in which case ``otherwise`` happens.

    Args:
        check: raises KeyError, TypeError or ValueError for a story that cannot be used.
    """
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as stream:
            story = json.loads((stream.metadata() or {})[STORY])
            if story["key"] != key:
                return None
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
        if story.pop("sha256", None) != _digest(tensors, story):
            raise ValueError("its checksum does not match")
        check(story)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s); %s", path, str(error).splitlines()[0], otherwise)
        return None
    return tensors, story


def absorb(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Add a tensor's numbers to a digest."""
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _digest(tensors: dict[str, Tensor], story: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(story, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        absorb(digest, tensors[name])
    return digest.hexdigest()

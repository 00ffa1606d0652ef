"""Files of tensors that are found again: safetensors with metadata, stored under a key, with a SHA-256 of both.

A file is written whole or not at all. A damaged one is noticed, named in the log, and counts as absent.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.runtime.text import printable

log = logging.getLogger(__name__)

METADATA = "stage"
"""Under this name the file's header holds the metadata, as JSON; ``metadata["key"]`` is what the tensors depend on."""

TensorsAndMetadata = tuple[dict[str, Tensor], dict[str, Any]]


def serialised(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> bytes:
    """The content of a file; ``metadata["key"]`` is what it depends on."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # All under one name: safetensors writes several in arbitrary order, and equal runs should leave equal files.
    return save(tensors, {METADATA: json.dumps(metadata | {"sha256": _digest(tensors, metadata)})})


def read(path: Path, key: str, otherwise: str, check: Callable[[dict[str, Any]], object]) -> TensorsAndMetadata | None:
    """What was stored under ``key``; None if nothing was, or the file is damaged: then the log says ``otherwise``.

    Args:
        otherwise: a clause, e.g. ``this stage is repeated``.
        check: raises an exception for metadata that cannot be used.
    """
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as stream:
            metadata = _metadata(stream)
            if metadata["key"] != key:
                return None
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
        if metadata.pop("sha256", None) != _digest(tensors, metadata):
            raise ValueError("its checksum does not match")
        check(metadata)
    except Exception as error:  # of a file that may be anything
        reason = printable(str(error).partition("\n")[0]) or type(error).__name__
        log.warning("%s is unreadable: %s; %s", path, reason, otherwise)
        return None
    return tensors, metadata


def has_other_key(path: Path, key: str) -> bool:
    """Whether a file is there that was stored under another key: by another version, or under other settings."""
    try:
        if not path.is_file():
            return False
        with safe_open(path, framework="pt") as stream:
            return _metadata(stream)["key"] != key
    except Exception:
        return False


def is_kept(path: Path) -> bool | None:
    """Whether a file was stored by `serialised`; None if it cannot be read."""
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as stream:
            return METADATA in (stream.metadata() or {})
    except Exception:
        return None


def absorb(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Add a tensor's numbers to a digest."""
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _metadata(stream: Any) -> dict[str, Any]:
    metadata = json.loads((stream.metadata() or {})[METADATA])
    if not isinstance(metadata, dict) or "key" not in metadata:
        raise ValueError("it does not say what it was made from")
    return metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        absorb(digest, tensors[name])
    return digest.hexdigest()

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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

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
        check: raises KeyError, TypeError or ValueError for metadata that cannot be used.
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
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s); %s", path, str(error).splitlines()[0], otherwise)
        return None
    return tensors, metadata


def has_other_key(path: Path, key: str) -> bool:
    """Whether a file is there that was stored under another key: by another version, or under other settings."""
    try:
        with safe_open(path, framework="pt") as stream:
            return _metadata(stream)["key"] != key
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return False


def absorb(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Add a tensor's numbers to a digest."""
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _metadata(stream: Any) -> dict[str, Any]:
    return json.loads((stream.metadata() or {})[METADATA])


def _digest(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        absorb(digest, tensors[name])
    return digest.hexdigest()

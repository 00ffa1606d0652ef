"""``tensors.safetensors``: what a run keeps of its final state."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from pipeline.runtime.files import atomic

FILE = "tensors.safetensors"


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], max_mb: float) -> str | None:
    """Write named tensors; returns why nothing was written, or None if it was.

    Args:
        tensors: on any device, of any shape and dtype that safetensors knows.
        max_mb: size in MiB above which nothing is written.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    if not tensors:
        return "the results of the run hold no tensors"
    size_mb = sum(tensor.nbytes for tensor in tensors.values()) / 2**20
    if size_mb > max_mb:
        return f"{FILE} would take {size_mb:.1f} MiB, above record.max_tensor_mb={max_mb:g}"
    with atomic(folder / FILE) as path:
        path.write_bytes(save(_separate(tensors)))  # an OSError names the disk's trouble, safetensors' own would not
    return None


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and none in the memory of another: safetensors refuses views of one tensor."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        found[name] = own.clone() if own.untyped_storage().data_ptr() in taken else own
        taken.add(own.untyped_storage().data_ptr())
    return found

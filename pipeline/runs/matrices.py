"""Matrices that settings name: targets and anchors from files, and a synthetic teacher."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.randomness import generator

ENDINGS = (".npy", ".csv", ".safetensors")


def read_matrix(key: str, value: str, prefer: str) -> Tensor:
    """The matrix ``(N, columns)`` in a file, float64.

    Args:
        key: the setting that names it.
        prefer: the tensor to take from a safetensors file that holds several.

    Raises:
        ConfigError: no such file, another ending, or no matrix of finite numbers in it.
    """
    path, said = Path(value).expanduser(), f"{key}={value}"
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{said} names no matrix; allowed: a file ending in {', '.join(ENDINGS)}.")
    if not path.is_file():
        raise ConfigError(f"{said} is not there; allowed: a file that is.")
    try:
        matrix = _read(path, said, prefer)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{said} cannot be read ({reason}); allowed: a matrix of numbers.") from error
    if matrix.dim() == 1:
        matrix = matrix[:, None]
    if matrix.dim() != 2 or not matrix.numel() or not bool(matrix.isfinite().all()):
        raise ConfigError(
            f"{said} holds a tensor of shape {tuple(matrix.shape)}; allowed: a matrix (N, columns) of finite numbers."
        )
    return matrix


def _read(path: Path, said: str, prefer: str) -> Tensor:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as stream:
            names = list(stream.keys())
            if prefer not in names and len(names) != 1:
                raise ConfigError(f"{said} holds {', '.join(names)}; allowed: one tensor, or one named {prefer}.")
            return stream.get_tensor(prefer if prefer in names else names[0]).to(torch.float64)
    if path.suffix == ".csv":
        return torch.from_numpy(np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64))
    array = np.load(path, allow_pickle=False)
    return torch.from_numpy(np.asarray(array, dtype=np.float64).copy())


def teacher(num_samples: int, num_outputs: int, seed: int) -> Tensor:
    """Targets ``(N, K)`` of a linear teacher: Gaussian inputs (one more than outputs), mixed, plus a constant.

    The outputs are correlated, their covariance has full rank, and its eigenvalues differ (ours; no paper's teacher).
    """
    source = generator(seed, "teacher")
    inputs = torch.randn(num_samples, num_outputs + 1, generator=source, dtype=torch.float64)
    mixing = torch.randn(num_outputs + 1, num_outputs, generator=source, dtype=torch.float64) / (num_outputs + 1) ** 0.5
    return inputs @ mixing + torch.randn(num_outputs, generator=source, dtype=torch.float64)


def digest(value: str | None) -> str:
    """SHA-256 of the file that a setting names; empty where it names none."""
    path = Path(value or "").expanduser()
    return hashlib.sha256(path.read_bytes()).hexdigest() if value and path.is_file() else ""

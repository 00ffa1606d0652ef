"""What numbers were made with, and how long that took."""

import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.runtime import ranks


def environment(device: str) -> dict[str, Any]:
    """What the numbers were made with: versions, device, how many processes the run had, git commit."""
    import torch

    packages = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "wandb", "timm", "numpy")
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu ({platform.machine()})",
        "processes": ranks.world_size(),
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


@cache
def _version(package: str) -> str:
    """Of what is installed; read once, as it does not change while it is in use."""
    return version(package)


def _git_commit() -> str | None:
    """Commit of the checkout this code runs from (``+changes`` when it was edited); None when installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True, timeout=10).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.strip() + ("+changes" if status.strip() else "")


class Stopwatch:
    """Seconds spent per stage, and the stage that was begun last."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.current = "the start"

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start, self.current = time.perf_counter(), stage
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - start, 3)

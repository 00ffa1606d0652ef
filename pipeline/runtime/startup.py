"""What a process of ours sets before it does anything else."""

import os

from pipeline.runtime.streams import steady_streams


def begin() -> None:
    """The first thing that each of our programs does."""
    steady_streams()
    before_torch()
    # A notebook leaves its own here, which other processes cannot load; what we draw goes to files.
    os.environ["MPLBACKEND"] = "agg"


def before_torch() -> None:
    """Set what PyTorch reads once, unless the user has set it."""
    # Read when PyTorch loads its thread pool. Waiting threads that spin make a step up to 27 times slower as soon as
    # another process wants their core; sleeping ones cost a few per cent when alone.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Read when CUDA starts; without it no cuBLAS product is deterministic (trainer.deterministic).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

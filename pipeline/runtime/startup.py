"""What a process sets before it imports PyTorch."""

import os


def before_torch() -> None:
    """Set what PyTorch reads once, unless the user has set it."""
    # Read when PyTorch loads its thread pool. Waiting threads that spin make a step up to 27 times slower as soon as
    # another process wants their core; sleeping ones cost a few per cent when alone.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Read when CUDA starts; without it no cuBLAS product is deterministic (trainer.deterministic).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

"""What a process of ours sets before it does anything else."""

import atexit
import gc
import os

from pipeline.runtime.streams import steady_streams


def begin() -> None:
    """The first thing that each of our programs does."""
    steady_streams()
    collect_rarely()
    before_torch()
    # A notebook leaves its own here, which other processes cannot load; what we draw goes to files.
    os.environ["MPLBACKEND"] = "agg"


RARELY = (100_000, 10, 10)
"""Thresholds of Python's collector of cycles: the first is how many objects are made until it looks at them."""
_usual: list[tuple[int, int, int]] = []


def collect_rarely() -> None:
    """Let modules load and configurations compose without the collector walking through all of them again and again.

    They make next to no garbage, and the walks take a quarter of the time of ``--help``; so does the one at the end of
    the process, over what is about to go anyway.
    """
    if not _usual:
        _usual.append(gc.get_threshold())
        atexit.register(gc.freeze)
    gc.set_threshold(*RARELY)


def collect_as_usual() -> None:
    """What a run calls when it begins: its garbage holds tensors. What was loaded until now is not looked at again."""
    if gc.get_threshold() == RARELY:
        gc.freeze()
        gc.set_threshold(*_usual[0])


def before_torch() -> None:
    """Set what PyTorch reads once, unless the user has set it."""
    # Read when PyTorch loads its thread pool. Waiting threads that spin for milliseconds make a step up to 27 times
    # slower as soon as another process wants their core. A tenth of one is about as long as it takes to wake a thread
    # up, which a step of ResNet-20 has to do 550 times.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Read when CUDA starts; without it no cuBLAS product is deterministic (trainer.deterministic).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

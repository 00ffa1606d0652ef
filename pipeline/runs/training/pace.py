"""How many batches a step of Lightning's has: one, where what Lightning does around it costs little of a step.

Every batch has an optimizer step of its own either way, and the numbers of a training are the same; what differs is how
often Lightning's hooks run, and so what callbacks see.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipeline.config import Config
from pipeline.data import ROUND, ResidentLoader
from pipeline.runs.training.acceleration import Acceleration, undone
from pipeline.runs.training.learners import Learner
from pipeline.runtime import ranks

LIGHTNING_SECONDS = 0.8e-3
"""What Lightning costs around one step, measured with a network of one unit (docs/performance.md)."""
SHARE = 0.03
"""Of a step, that it may cost."""
ENOUGH = LIGHTNING_SECONDS / SHARE
"""Seconds of a batch for which that is so."""
TRIES = 6
"""At most, because one may have been held up by another program."""


@dataclass(frozen=True)
class Pace:
    """What was decided, and why, in words."""

    batches: int
    why: str

    def __str__(self) -> str:
        """For the log."""
        size = "one batch" if self.batches == 1 else f"{self.batches} batches"
        return f"a step of Lightning's is {size}: {self.why}"


def pace_of(
    config: Config,
    acceleration: Acceleration,
    learner: Learner,
    new_loader: Callable[[], ResidentLoader],
    kept: int | None,
) -> Pace:
    """One batch where callbacks are given, an epoch has one, or a trial shows that Lightning costs at most 3 % of it.

    Args:
        kept: how a checkpoint has it that the training goes on from.
    """
    if config.trainer.callbacks:
        return Pace(1, "callbacks are to see each")
    if kept is not None:
        return Pace(kept, "so it was when the checkpoint was saved")
    if learner.batches == 1:
        return Pace(1, "an epoch has no more")
    seconds = _seconds_of_a_batch(acceleration, learner, new_loader())
    told = f"one takes {1e3 * seconds:.3g} ms, of which Lightning would cost {100 * LIGHTNING_SECONDS / seconds:.2g} %"
    return Pace(1 if SHARE * seconds >= LIGHTNING_SECONDS else ROUND, told)


def _seconds_of_a_batch(acceleration: Acceleration, learner: Learner, loader: ResidentLoader) -> float:
    """Of the loss of a batch and its gradients, tried and forgotten; the shortest try counts, on the slowest rank.

    One is enough that falls short of `ENOUGH`, and two of a network that takes long.
    """
    images, labels = next(iter(loader))
    half, shortest = acceleration.precision == "bf16", math.inf
    with undone(learner):
        for tries in range(1, TRIES + 1):
            _wait(learner.device)
            began = time.perf_counter()
            with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
                loss = learner(images, labels)
            loss.backward()
            _wait(learner.device)
            shortest = min(shortest, ranks.largest(time.perf_counter() - began))
            if shortest < ENOUGH or (tries > 1 and shortest > 10 * ENOUGH):
                break
    return shortest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

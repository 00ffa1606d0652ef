"""Whether the samples of a head are shared out among the ranks of a run, each with features of its own images alone."""

import logging
from collections.abc import Iterator

import torch

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.metrics.registry import CORE
from pipeline.runs.protocols import Protocol
from pipeline.runtime import ranks
from pipeline.runtime.memory import free_memory

log = logging.getLogger(__name__)

COPIES = 3
"""Of all features that a rank holds at some time: as they come from the ranks, joined, and in float64 (which counts
twice as much as float32, and there are two of these)."""


def is_sharded(config: Config, protocol: Protocol, images: ImageData, num_features: int) -> bool:
    """Whether the head of a run descends on shares of the samples; collective.

    ``descent.sharded=auto`` shares them out where they can be, and the features of both splits would take more than
    half of what a rank has.
    """
    asked = config.descent.sharded
    if ranks.world_size() == 1 or asked == "false":
        return False
    if asked == "true":
        return True
    needed = 8 * COPIES * num_features * (images.train.labels.numel() + images.test.labels.numel())
    # All ranks are asked, because they do as the one with least.
    scarce = bool(ranks.largest(float(needed > _of_a_rank(config) // 2)))
    if not scarce:
        return False
    reason = next(why_not_sharded(config, protocol), None)
    if reason is None:
        log.info("descent.sharded=auto: features of %d MiB are shared out among the ranks", needed >> 20)
    else:
        log.warning("the features take %d MiB of each rank, and cannot be shared out: %s", needed >> 20, reason)
    return reason is None


def why_not_sharded(config: Config, protocol: Protocol) -> Iterator[str]:
    """Why samples cannot be shared out, and what is allowed, a clause each."""
    head, descent, measure = config.head, config.descent, config.measure
    if protocol.head != "descent" or not protocol.network:
        yield (
            f"protocol={config.protocol.name} has no head that descends on frozen features of images; allowed: auto, "
            "false, or protocol=frozen_features"
        )
    elif head.inputs == "free":
        yield "head.inputs=free moves the features themselves; allowed: auto, false, or head.inputs=frozen"
    if config.objective.needs_labels:
        yield f"head.loss={head.loss} compares samples of all ranks; allowed: auto, false, or another loss"
    if descent.polish:
        yield "descent.polish=true takes all samples at once; allowed: auto, false, or descent.polish=false"
    if config.features.cache is not None:
        yield "features.cache keeps whole splits; allowed: auto, false, or features.cache=null"
    if tuple(measure.families) != (CORE,):
        yield f"measure.families={list(measure.families)} take rows of all ranks; allowed: auto, false, or [core]"


def _of_a_rank(config: Config) -> int:
    """Bytes that a rank can still have."""
    of_machine = free_memory() // config.trainer.devices
    if config.device.type != "cuda":
        return of_machine
    return min(of_machine, torch.cuda.mem_get_info(config.device)[0])

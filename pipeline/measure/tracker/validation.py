"""What a Lightning trainer's validation sees: its loaders, and what it makes of their batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import RunningStage

from pipeline.measure.tracker.evaluation import Feed


def validation_feeds(trainer: pl.Trainer) -> dict[str, Feed]:
    """The validation loaders up to the trainer's limits, by prefix: none for one loader, its name for several.

    Raises:
        ValueError: if there is none, or the trainer takes no batch of it.
    """
    if not trainer.num_val_batches and trainer.enable_validation:
        trainer.fit_loop.epoch_loop.val_loop.setup_data()  # late, where validation has not run yet
    limits = trainer.num_val_batches
    loaders = dict(_flat(trainer.val_dataloaders)) if any(limits) else {}
    if not loaders:
        why = "limit_val_batches=0" if trainer.limit_val_batches == 0 else "no loader, or no validation_step"
        raise ValueError(
            "the trainer must have a validation dataloader for the tracker to measure, got none "
            f"({why}): pass a loader, tracker.callback(loader)."
        )
    return {
        f"{name}/" if name else "": feed_of(trainer, loader, index, limits[index])
        for index, (name, loader) in enumerate(loaders.items())
    }


def feed_of(trainer: pl.Trainer, loader: Iterable, index: int = 0, limit: float = math.inf) -> Feed:
    """A loader whose batches go the way of the trainer's validation: precision, transfer, and the hooks around it."""

    def prepare(batch: object) -> object:
        with validating(trainer):
            batch = trainer.precision_plugin.convert_input(batch)
            batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=index)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=index)

    def around() -> AbstractContextManager:
        return _as_in_validation(trainer)

    if trainer.fast_dev_run:
        limit = min(limit, int(trainer.fast_dev_run))
    return Feed(loader, None if limit == math.inf else int(limit), prepare, around)


@contextmanager
def validating(trainer: pl.Trainer) -> Iterator[None]:
    """Within, hooks that ask find the trainer validating, not training."""
    stage = trainer.state.stage
    trainer.state.stage = RunningStage.VALIDATING
    try:
        yield
    finally:
        trainer.state.stage = stage


@contextmanager
def _as_in_validation(trainer: pl.Trainer) -> Iterator[None]:
    with validating(trainer), trainer.precision_plugin.val_step_context():
        yield


def _flat(loaders: object, name: str = "") -> Iterator[tuple[str, Iterable]]:
    """(name, loader) of loaders in lists and dicts; one by itself has no name."""
    if isinstance(loaders, dict):
        parts = [(str(key), loader) for key, loader in loaders.items()]
    elif isinstance(loaders, list | tuple):
        parts = [(f"dataloader_{index}", loader) for index, loader in enumerate(loaders)]
    else:
        if loaders is not None:
            yield name, loaders
        return
    for part, loader in parts:
        inner = name if len(parts) == 1 else f"{name}/{part}" if name else part
        yield from _flat(loader, inner)

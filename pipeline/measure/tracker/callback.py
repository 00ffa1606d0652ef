"""A tracker as a callback of Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytorch_lightning as pl

if TYPE_CHECKING:
    from pipeline.measure.tracker.tracker import CollapseTracker


class CollapseCallback(pl.Callback):
    """Measures after every n-th training epoch, and gives the numbers to all loggers of the trainer.

    Make it with `CollapseTracker.callback`. The tracker's step is the number of epochs completed; the loggers get
    `trainer.global_step` and the epoch. Under DDP every rank measures what its loader yields, and the numbers are those
    of all samples together (padding by a `DistributedSampler`, such as Lightning's, does not count).

    Args:
        tracker: what measures; its model is the LightningModule or a part of it.
        loader: what it measures; None is the trainer's validation dataloader.
        every_n_epochs: at least 1.
        prefix: put before the keys in the loggers, to tell two trackers apart.
        test: a loader of another split, measured by the class means of the first; None for no such split.
    """

    def __init__(
        self,
        tracker: CollapseTracker,
        loader: Iterable | None = None,
        every_n_epochs: int = 1,
        prefix: str = "",
        test: Iterable | None = None,
    ) -> None:
        if isinstance(every_n_epochs, bool) or not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be an int of at least 1, got {every_n_epochs!r}.")
        self.tracker, self.loader, self.every_n_epochs = tracker, loader, every_n_epochs
        self.prefix, self.test = prefix, test

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, and log."""
        epochs = trainer.current_epoch + 1
        if epochs % self.every_n_epochs:
            return
        loader = _validation_loader(trainer) if self.loader is None else self.loader
        self.tracker.measure(loader, step=epochs, test=self.test)
        values = {f"{self.prefix}{key}": value for key, value in self.tracker.latest.items()}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **values}, step=trainer.global_step)


def _validation_loader(trainer: pl.Trainer) -> Iterable:
    loaders = trainer.val_dataloaders
    if isinstance(loaders, list | tuple) and len(loaders) == 1:
        return loaders[0]
    if loaders is None or isinstance(loaders, list | tuple | dict):
        got = "none" if loaders is None else str(len(loaders))
        raise ValueError(
            f"the trainer must have one validation dataloader for the tracker to measure, got {got}: "
            "pass a loader, tracker.callback(loader)."
        )
    return loaders

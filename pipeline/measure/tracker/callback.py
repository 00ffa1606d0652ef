"""A tracker as a callback of Lightning's Trainer."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden

from pipeline.measure.tracker.layers import plain
from pipeline.measure.tracker.tracker import CollapseTracker
from pipeline.measure.tracker.validation import feed_of, validation_feeds
from pipeline.metrics.engine.checks import check_num_classes
from pipeline.networks.patterns import Pattern, listed


class CollapseCallback(pl.Callback):
    """Measures after every n-th training epoch what validation sees, for the trainer's loggers and other callbacks.

        CollapseCallback(num_classes=10, layers=["net.layer*", "net.fc:pre"])    # of the LightningModule that is fit
        tracker.callback()                                                      # of a tracker that is there already

    Batches go the way of the trainer's validation: up to `limit_val_batches`, cast by the precision plugin, through the
    batch-transfer hooks. The tracker's step is the number of epochs completed; the loggers get `trainer.global_step`
    and the epoch, `trainer.callback_metrics` the same values (for EarlyStopping and ModelCheckpoint), and a checkpoint
    all that was measured. Several validation loaders are measured each under its own prefix ("dataloader_0/", or its
    name in a dict). Under DDP every rank measures what its loader yields, and the numbers are those of all samples
    together (padding by a `DistributedSampler`, such as Lightning's, does not count).

    Args:
        tracker: what measures; its model is the LightningModule or a part of it. Without one it is made in `setup`.
        loader: what it measures; None is the trainer's validation loaders.
        every_n_epochs: at least 1.
        prefix: put before the keys in the loggers, to tell two trackers apart.
        test: a loader of another split, measured by the class means of the first; None for no such split.
        num_classes, layers: in place of a tracker, K and the layers of the LightningModule.
        options: other arguments of `CollapseTracker`, such as metrics and split.

    Raises:
        ValueError: for numbers out of range, and unless there is either a tracker or num_classes and layers.
        TypeError: for an unknown option.
    """

    def __init__(
        self,
        tracker: CollapseTracker | None = None,
        loader: Iterable | None = None,
        every_n_epochs: int = 1,
        prefix: str = "",
        test: Iterable | None = None,
        *,
        num_classes: int | None = None,
        layers: Sequence[Pattern] | Pattern | None = None,
        **options: Any,
    ) -> None:
        if isinstance(every_n_epochs, bool) or not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be an int of at least 1, got {every_n_epochs!r}.")
        _check_source(tracker, num_classes, layers, options)
        self.tracker, self.loader, self.every_n_epochs = tracker, loader, every_n_epochs
        self.prefix, self.test = prefix, test
        self._arguments = None
        if tracker is None:
            self._arguments = {"num_classes": num_classes, "layers": listed(layers), **options}
        self._loaded: Mapping[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the tracker, unless the layers are still to be made (`configure_model`)."""
        if stage == "fit" and not is_overridden("configure_model", pl_module):
            self._bind(pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the tracker if it is not there."""
        self._bind(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, and hand on the values."""
        epochs = trainer.current_epoch + 1
        if epochs % self.every_n_epochs:
            return
        feeds = validation_feeds(trainer) if self.loader is None else {"": feed_of(trainer, self.loader)}
        test = None if self.test is None else feed_of(trainer, self.test)
        self.tracker.measure_feeds(feeds, step=epochs, test=test)
        values = {f"{self.prefix}{key}": value for key, value in self.tracker.latest.items()}
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **values}, step=trainer.global_step)

    @property
    def state_key(self) -> str:
        """What tells the callback's part of a checkpoint from those of others: its prefix, and its layers by name."""
        if self._arguments is None:
            layers = self.tracker.layers
        else:
            layers = [layer if isinstance(layer, str) else str(layer) for layer in self._arguments["layers"]]
        return self._generate_state_key(prefix=self.prefix, layers=layers)

    def state_dict(self) -> dict[str, Any]:
        """All that was measured."""
        return {} if self.tracker is None else self.tracker.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._loaded = state_dict or None
        self._take_up()

    def _bind(self, pl_module: pl.LightningModule) -> None:
        if self._arguments is not None and (self.tracker is None or self.tracker.model is not plain(pl_module)):
            self.tracker = CollapseTracker(pl_module, **self._arguments)
        self._take_up()

    def _take_up(self) -> None:
        if self.tracker is not None and self._loaded is not None:
            self.tracker.load_state_dict(self._loaded)
            self._loaded = None


def _check_source(
    tracker: CollapseTracker | None, num_classes: int | None, layers: object, options: Mapping[str, Any]
) -> None:
    """Either a tracker, or what it takes to make one."""
    if tracker is not None:
        given = [name for name, value in (("num_classes", num_classes), ("layers", layers)) if value is not None]
        if given or options:
            raise ValueError(f"a tracker has its own {', '.join([*given, *options])}: pass either of the two.")
        return
    if num_classes is None or layers is None:
        raise ValueError("CollapseCallback needs num_classes and layers, or a tracker.")
    check_num_classes(num_classes)
    allowed = inspect.signature(CollapseTracker).parameters.keys() - {"model"}
    unknown = options.keys() - allowed
    if unknown:
        raise TypeError(f"CollapseCallback has no option {', '.join(sorted(unknown))}; it has {sorted(allowed)}.")

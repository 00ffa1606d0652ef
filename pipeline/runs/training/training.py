"""Mini-batch training with Lightning: the learner says what is trained, this module how."""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from pipeline.config import Config
from pipeline.data import ImageData, ResidentLoader, Rounds
from pipeline.runs.training.acceleration import decide
from pipeline.runs.training.callbacks import Published, explained, stopped_by, user_callbacks
from pipeline.runs.training.checkpoints import COLLAPSED, TrainingCheckpoints, check_finite
from pipeline.runs.training.learners import Learner
from pipeline.runs.training.pace import pace_of
from pipeline.runs.training.synchronised_norm import synchronised_norms
from pipeline.runs.training.trainers import lightning_warnings, trainer_of
from pipeline.runtime import ranks
from pipeline.runtime.console import VERBOSE, verbosity
from pipeline.runtime.errors import RunError
from pipeline.runtime.interruption import interruption
from pipeline.runtime.memory import freed_memory_kept
from pipeline.runtime.modes import evaluating, modes_kept
from pipeline.runtime.progress import Progress
from pipeline.runtime.randomness import generator

log = logging.getLogger(__name__)

Measure = Callable[[int], str]
"""Called with the number of epochs done; returns the headline for the progress line."""


class EveryScheduledEpoch(pl.Callback):
    """Call ``measure(epoch)`` before training and after each epoch of the schedule, and ``finished()`` after it.

    ``published`` shows callbacks of the user's what was measured.
    """

    def __init__(
        self,
        schedule: list[int],
        measure: Measure,
        finished: Callable[[], bool],
        progress: Progress,
        published: Published,
    ) -> None:
        self.schedule, self.measure, self.finished, self.progress = frozenset(schedule), measure, finished, progress
        self.published, self.collapsed = published, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:  # else the training goes on from a checkpoint, which holds what was measured
            self._measure(trainer, 0)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.published.begun()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.progress.advance_to(trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        self._measure(trainer, epoch)
        if epoch in self.schedule and self.finished():
            trainer.should_stop = self.collapsed = True

    def stopping(self, trainer: pl.Trainer) -> str:
        """Measure the epoch with which a training ends early, if that has not been done; returns why it ends."""
        if trainer.current_epoch + 1 not in self.schedule:
            self.progress.headline(self.measure(trainer.current_epoch + 1))
        return COLLAPSED if self.collapsed else stopped_by(self.published.users)

    def _measure(self, trainer: pl.Trainer, epoch: int) -> None:
        if epoch in self.schedule:
            self.progress.headline(self.measure(epoch))
        self.published.measured(trainer)


@contextmanager
def _advice_on_norms(batch_size: int, num_images: int) -> Iterator[None]:
    """Within, the error of a batch norm that gets a batch of one image names the setting that made one.

    Raises:
        RunError: instead of PyTorch's ValueError.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise RunError(
            f"backbone.batch_size={batch_size} leaves a batch of one of the {num_images} training images, which a "
            "batch norm of the backbone cannot normalise; another backbone.batch_size helps."
        ) from error


@torch.no_grad()
def calibrate_norms(backbone: nn.Module, images: ImageData, batch_size: int, seed: int) -> None:
    """Set the running statistics of batch norms to those of the training images, instead of mean 0 and variance 1.

    In evaluation mode an untrained network would otherwise not be normalised at all: its features explode with depth,
    and neither the measurement before training nor the control without training (``backbone.epochs=0``) would mean
    anything. One pass; the weights stay as they are. So do statistics that somebody else has made, and those of norms
    that the network itself keeps in evaluation mode.
    """
    norms = [norm for norm in _norms_in_training(backbone) if _was_never_fed(norm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    device = next(backbone.parameters()).device
    # Shuffled, because every batch has to hold all classes; without the last batch if it is smaller.
    size = min(batch_size, len(images.train))
    loader = ResidentLoader(
        images.train, size, seed=seed, standardise=images.standardise, device=device, drop_last=True
    )
    with evaluating(backbone), _advice_on_norms(batch_size, len(images.train)):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over the batches
            norm.train()
        for batch, _ in loader:
            backbone(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _norms_in_training(backbone: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Batch norms with statistics that are in training mode when the network is."""
    parts = [part for part in backbone.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    own = {part for part in parts if part.training or not backbone.training}
    with modes_kept(backbone):
        backbone.train()
        return [part for part in parts if part in own and part.training and part.track_running_stats]


def _was_never_fed(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Whether its statistics are those that every norm begins with."""
    counted = norm.num_batches_tracked is not None and bool(norm.num_batches_tracked)
    return not counted and bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())


def train(
    learner: Learner,
    images: ImageData,
    config: Config,
    schedule: list[int],
    measure: Measure,
    checkpoints: TrainingCheckpoints,
    finished: Callable[[], bool] = lambda: False,
) -> None:
    """Train ``learner`` in place on the training split, from its latest checkpoint if there is one.

    Args:
        schedule: epochs (0 = before training) after which ``measure(epoch)`` is called.
        finished: asked after each measurement but the first; True ends the training early.

    Raises:
        RunError: the loss became NaN or infinite.
        Interrupted: a signal asked the run to end; a checkpoint was kept.
    """
    if verbosity() != VERBOSE:
        for name in ("pytorch_lightning", "lightning_fabric"):  # tips and device tables; importing them sets a level
            logging.getLogger(name).setLevel(logging.WARNING)
    settings, images = config.backbone, images.to(config.device)
    acceleration = decide(config, learner.backbone, images)
    batch_size = settings.batch_of(len(images.train))
    learner.to(config.device).train()
    with (
        torch.random.fork_rng(devices=[config.device] if config.device.type == "cuda" else []),
        freed_memory_kept() if config.device.type == "cpu" else nullcontext(),
        synchronised_norms(learner),
        acceleration.applied(learner, images, batch_size),
    ):
        _seed_generators(config)
        loader = _loader(config, images, batch_size)
        learner.batches, learner.mixup, learner.seed = len(loader), settings.mixup, config.seed
        with Progress("backbone", settings.epochs * len(loader), "batch") as progress:

            def new_trainer() -> tuple[pl.Trainer, list[pl.Callback]]:
                users = user_callbacks(config)
                measuring = EveryScheduledEpoch(
                    schedule, measure, finished, progress, Published(checkpoints.record, users)
                )
                checkpoints.stopping = measuring.stopping
                # Measured first, so that callbacks see it, and a checkpoint at the end of an epoch holds all of it.
                return trainer_of(config, acceleration, checkpoints.path, [measuring, *users, checkpoints]), users

            def begin() -> Rounds:
                def loader() -> ResidentLoader:
                    return _loader(config, images, batch_size)

                pace = pace_of(config, acceleration, learner, loader, checkpoints.round)
                log.debug("%s", pace)
                learner.round = checkpoints.round = pace.batches
                checkpoints.record.note("backbone", 0, batches_per_step=float(pace.batches))
                return Rounds(loader(), pace.batches)

            advice = _advice_on_norms(settings.batch_size, len(images.train))
            with lightning_warnings(), advice, interruption.deferred():
                trainer = _fit(new_trainer, learner, begin, checkpoints)
            progress.advance_to(trainer.global_step)
    check_finite(learner, f"after step {trainer.global_step}")


def _seed_generators(config: Config) -> None:
    """Dropout, if a backbone has any, draws from the device's global generator; ranks must not drop the same units."""
    source = generator(config.seed, f"training/rank_{ranks.rank()}" if ranks.rank() else "training")
    torch.set_rng_state(source.get_state())  # not `torch.manual_seed`, which reseeds GPUs that nothing here restores
    if config.device.type == "cuda":
        with torch.cuda.device(config.device):
            torch.cuda.manual_seed(source.initial_seed())


def _fit(
    new_trainer: Callable[[], tuple[pl.Trainer, list[pl.Callback]]],
    learner: Learner,
    begin: Callable[[], Rounds],
    checkpoints: TrainingCheckpoints,
) -> pl.Trainer:
    """Train from the latest checkpoint from which that can be begun, or else from the start."""
    start = None
    while True:
        path, (trainer, users) = checkpoints.latest(), new_trainer()
        if path is not None:
            start = start or {name: copy.deepcopy(value) for name, value in learner.state_dict().items()}
        try:
            trainer.fit(learner, begin(), ckpt_path=path, weights_only=True)
        except Exception as error:
            if path is None or checkpoints.begun:
                told = explained(error, users)
                if told is error:
                    raise
                raise told from error
            checkpoints.reject(path, error)
            learner.load_state_dict(start)
        else:
            return trainer


def _loader(config: Config, images: ImageData, batch_size: int) -> ResidentLoader:
    return ResidentLoader(
        images.train,
        batch_size,
        seed=config.seed,
        shuffle=True,
        augment=config.data.augment,
        standardise=images.standardise,
        device=config.device,
        part=(ranks.rank(), ranks.world_size()),
    )

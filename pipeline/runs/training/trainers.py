"""Lightning's trainer as we use it: processes that are there already, our own checkpoints, none of its words."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy

from pipeline.config import Config
from pipeline.runs.training.acceleration import Acceleration
from pipeline.runs.training.checkpoints import AtomicCheckpointIO
from pipeline.runtime import ranks


class StartedProcesses(LightningEnvironment):
    """The processes have been started already (`pipeline.runs.processes`), whoever did so.

    Lightning must start none, leave Slurm's signals to us, and keep the environment variables that give a process its
    rank.
    """

    def teardown(self) -> None:
        pass


class BatchByBatch(DDPStrategy):
    """A training step is many batches; the learner passes each of them through the DDP wrapper itself."""

    def training_step(self, *arguments: Any, **more: Any) -> Any:
        with self.precision_plugin.train_step_context():
            return self.lightning_module.training_step(*arguments, **more)


def trainer_of(
    config: Config, acceleration: Acceleration, checkpoint: Path, callbacks: list[pl.Callback]
) -> pl.Trainer:
    on_gpu = config.device.type == "cuda"
    strategy: Strategy | str = "auto"
    devices = config.trainer.devices
    if ranks.world_size() > 1:
        strategy = BatchByBatch(process_group_backend="nccl" if on_gpu else "gloo")
    if on_gpu and torch.cuda.device_count() < devices:  # each process sees its own alone, which Lightning refuses
        strategy.parallel_devices, devices = [torch.device("cuda", 0)] * devices, 1
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=devices,
        num_nodes=config.trainer.num_nodes,
        strategy=strategy,
        precision=acceleration.lightning,
        max_epochs=config.backbone.epochs,
        default_root_dir=checkpoint.parent.parent,  # callbacks of the user's write beside our checkpoints
        logger=False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(checkpoint), StartedProcesses()],
        # Ours counts all epochs, so that it can tell the time left; who names another one gets both.
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
    )


@contextmanager
def lightning_warnings() -> Iterator[None]:
    """Within, it does not warn of what is meant."""
    with warnings.catch_warnings():
        for message in (
            # True of every loader that is not a DataLoader; ours needs no workers, its images are in memory.
            ".*does not have many workers.*",
            # Whether to use a GPU is a setting; on Apple's, which this advises, no float64 is to be had.
            ".*GPU available but not used.*",
            # Whether srun starts the processes is decided elsewhere.
            ".*`srun` command is available.*",
            # Our loader's state is its position: it can go on inside an epoch.
            ".*resuming from a checkpoint that ended before.*",
            # The folder of checkpoints is ours, and a watched key is looked for where it was measured.
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*could not find the monitored key in the returned metrics.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield

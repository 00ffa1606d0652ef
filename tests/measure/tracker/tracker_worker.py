"""The distributed test of the tracker: Lightning trains a small network on two CPU ranks, every rank measures.

Argument: folder for the results. Which rank this is, Lightning reads from ``LOCAL_RANK``, as of any launcher's.
"""

import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from pipeline import CollapseTracker
from pipeline.metrics import registry

SAMPLES, CLASSES = 23, 3


def dataset() -> TensorDataset:
    """23 float64 images of three classes: an odd number, so that one of two shards is filled up."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(SAMPLES) % CLASSES
    return TensorDataset(torch.randn(SAMPLES, 1, 6, 6, generator=generator, dtype=torch.float64), labels)


class Learner(pl.LightningModule):
    """A convolution and a linear layer, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, dtype=torch.float64)
        self.fc = nn.Linear(4, CLASSES, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu().mean((2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], *where: int) -> None:
        """Nothing: the loader is for the tracker."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def tracker_of(model: nn.Module) -> CollapseTracker:
    return CollapseTracker(model, CLASSES, ["conv", "fc:pre"])


class OtherWays(pl.Callback):
    """At the end every rank measures in other ways, and writes down what it gets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        tracker, data = tracker_of(pl_module), dataset()
        results = {}
        sampler = DistributedSampler(data, trainer.world_size, trainer.global_rank, shuffle=True)
        tracker.measure(DataLoader(data, batch_size=5, sampler=sampler))
        results["shuffled shards"] = tracker.latest
        tracker.measure(DataLoader(data, batch_size=5))
        results["everything on every rank"] = tracker.latest
        if trainer.global_rank == 0:
            with tracker.listen(data.tensors[1]):
                pl_module(data.tensors[0])
        tracker.compute()
        results["one rank without a batch"] = tracker.latest
        # Through the wrapper, which the tracker looks through.
        wrapped = tracker_of(trainer.strategy.model)
        with wrapped.listen(data.tensors[1]):
            trainer.strategy.model.eval()(data.tensors[0])
        wrapped.compute()
        results["wrapped"] = wrapped.latest
        core = registry.families()[registry.CORE].metrics
        asked = CollapseTracker(pl_module, CLASSES, ["conv", "fc:pre"], metrics=list(core))
        sampler = DistributedSampler(data, trainer.world_size, trainer.global_rank, shuffle=True)
        asked.measure(DataLoader(data, batch_size=5, sampler=sampler), test=DataLoader(data, batch_size=4))
        results["everything"] = asked.latest
        torch.save(results, self.folder / f"rank{trainer.global_rank}.pt")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*does not have many workers")
    learner = Learner()
    loader = DataLoader(dataset(), batch_size=4)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, default_root_dir=folder,
        logger=CSVLogger(folder, name="", version=""), log_every_n_steps=1, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[tracker_of(learner).callback(), OtherWays(folder)],
    )  # fmt: skip
    trainer.fit(learner, loader, loader)
    if trainer.global_rank == 0:
        torch.save(learner.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

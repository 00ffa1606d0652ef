"""The callback measures what a Lightning validation sees, and hands the values on."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra.utils import instantiate
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pipeline import CollapseCallback, CollapseTracker

pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES, SAMPLES = 3, 42


def data(shift: float = 0.0) -> TensorDataset:
    labels = torch.arange(SAMPLES) % CLASSES
    noise = torch.randn(SAMPLES, 8, generator=torch.Generator().manual_seed(1))
    return TensorDataset(noise * 20 + 100 + shift + 10 * labels[:, None], labels)


class Learner(pl.LightningModule):
    """Normalises in the transfer hooks, where it also asks what the trainer is doing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Sequential(nn.Linear(8, 6), nn.Tanh())
        self.fc = nn.Linear(6, CLASSES)
        self.seen: list[list[Tensor]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(self.hidden(inputs))

    def on_before_batch_transfer(self, batch: list[Tensor], index: int) -> list[Tensor]:
        return [batch[0] - 100, batch[1]]

    def on_after_batch_transfer(self, batch: list[Tensor], index: int) -> list[Tensor]:
        return [batch[0] / (7 if self.trainer.training else 20), batch[1]]

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def on_validation_epoch_start(self) -> None:
        self.seen = [[], []]

    def validation_step(self, batch: list[Tensor], index: int, dataloader_idx: int = 0) -> None:
        self.seen[dataloader_idx].append((self.hidden(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)

    def dnc1_seen(self, index: int = 0) -> float:
        features, labels = (torch.cat(parts) for parts in zip(*self.seen[index], strict=True))
        return dnc1(features, labels)


def dnc1(features: Tensor, labels: Tensor) -> float:
    """By its definition."""
    features = features.detach().double()
    means = torch.stack([features[labels == k].mean(0) for k in range(CLASSES)])
    counts = torch.bincount(labels, minlength=CLASSES).double()
    centre = features.mean(0)
    within = (features - means[labels]).square().sum() / len(features)
    return float(within / (counts @ (means - centre).square().sum(1) / len(features)))


def trainer_of(folder: Path, *callbacks: pl.Callback, **options: object) -> pl.Trainer:
    settings = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    return pl.Trainer(callbacks=list(callbacks), **(settings | quiet | options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bf16-true"},
        {"precision": "64-true"},
        {"precision": "bf16-mixed"},
        {"limit_val_batches": 2},
        {"overfit_batches": 3},
        {"num_sanity_val_steps": 0},
    ],
    ids=str,
)
def test_the_callback_measures_the_features_of_the_validation(tmp_path, options) -> None:
    learner, callback = Learner(), CollapseCallback(num_classes=CLASSES, layers=["hidden"])
    loader = DataLoader(data(), batch_size=9)
    trainer_of(tmp_path, callback, **options).fit(learner, loader, loader)
    # Rounded as the network's own numbers are.
    tolerance = 2e-2 if "bf16" in str(options) else 1e-5
    assert callback.tracker.latest["hidden/post/dnc1"] == pytest.approx(learner.dnc1_seen(), rel=tolerance)


def test_several_loaders_are_measured_each_under_its_prefix(tmp_path) -> None:
    learner, callback = Learner(), CollapseCallback(num_classes=CLASSES, layers=["hidden"], prefix="nc/")
    loaders = [DataLoader(data(), batch_size=9), DataLoader(data(shift=30.0), batch_size=9)]
    for given, names in ((loaders, ("dataloader_0", "dataloader_1")), (dict(zip("ab", loaders, strict=True)), "ab")):
        trainer = trainer_of(tmp_path, callback)
        trainer.fit(learner, loaders[0], given)
        for index, name in enumerate(names):
            expected = learner.dnc1_seen(index)
            assert callback.tracker.latest[f"{name}/hidden/post/dnc1"] == pytest.approx(expected, rel=1e-5)
            assert float(trainer.callback_metrics[f"nc/{name}/hidden/post/dnc1"]) == pytest.approx(expected, rel=1e-5)
        learner = Learner()


def test_loaders_that_come_late_are_measured_before_they_do(tmp_path) -> None:
    callback, loader = CollapseCallback(num_classes=CLASSES, layers=["hidden"]), DataLoader(data(), batch_size=9)
    trainer = trainer_of(tmp_path, callback, check_val_every_n_epoch=2, num_sanity_val_steps=0)
    trainer.fit(Learner(), loader, loader)
    assert callback.tracker.history.step.unique().tolist() == [1, 2]


def test_other_callbacks_watch_the_values(tmp_path) -> None:
    key, loader = "hidden/post/dnc1", DataLoader(data(), batch_size=9)
    best = ModelCheckpoint(tmp_path, monitor=key, mode="min")
    stop = EarlyStopping(key, stopping_threshold=1e9, mode="min")
    callback = CollapseCallback(num_classes=CLASSES, layers=["hidden"])
    trainer = trainer_of(tmp_path, stop, best, callback, enable_checkpointing=True, max_epochs=5)
    trainer.fit(Learner(), loader, loader)
    assert trainer.current_epoch == 1
    assert float(best.best_model_score) == pytest.approx(callback.tracker.latest[key])


def test_a_resumed_fit_keeps_the_earlier_epochs(tmp_path) -> None:
    loader = DataLoader(data(), batch_size=9)

    def fit(epochs: int, resume: str | None = None) -> CollapseCallback:
        callback = CollapseCallback(num_classes=CLASSES, layers=["hidden"])
        trainer = trainer_of(tmp_path, callback, max_epochs=epochs)
        trainer.fit(Learner(), loader, loader, ckpt_path=resume, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return callback

    whole = fit(3).tracker.history
    fit(2)
    resumed = fit(3, str(tmp_path / "last.ckpt"))
    assert resumed.tracker.history.equals(whole)


def test_yaml_suffices_to_build_it(tmp_path) -> None:
    text = "_target_: pipeline.CollapseCallback\nnum_classes: 3\nlayers: [hidden, 'fc:pre']\nmetrics: [dnc1]\n"
    callback, loader = instantiate(yaml.safe_load(text)), DataLoader(data(), batch_size=9)
    trainer_of(tmp_path, callback).fit(Learner(), loader, loader)
    assert list(callback.tracker.latest) == ["hidden/post/dnc1", "fc/pre/dnc1"]


def test_layers_made_late_are_found(tmp_path) -> None:
    class Late(Learner):
        def __init__(self) -> None:
            super().__init__()
            del self.hidden

        def configure_model(self) -> None:
            self.hidden = nn.Linear(8, 6)

    callback, loader = CollapseCallback(num_classes=CLASSES, layers=["hidden"]), DataLoader(data(), batch_size=9)
    trainer_of(tmp_path, callback).fit(Late(), loader, loader)
    assert "hidden/post/dnc1" in callback.tracker.latest


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "needs num_classes and layers, or a tracker"),
        ({"num_classes": 1, "layers": "fc"}, ValueError, "num_classes must be an int of at least 2"),
        ({"num_classes": 2, "layers": "fc", "metric": ["dnc1"]}, TypeError, "no option metric; it has .*'metrics'"),
        ({"tracker": CollapseTracker(Learner(), 3, "fc"), "layers": "fc"}, ValueError, "a tracker has its own layers"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        CollapseCallback(**arguments)

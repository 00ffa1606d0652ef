"""Training of a backbone: the same result for the same seed, and an early stop at NaN."""

import copy
import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from pipeline.config import Config, settings
from pipeline.data import ResidentLoader, load_images
from pipeline.dufm.objectives import load_objective
from pipeline.networks import Backbone, build_backbone
from pipeline.runs.training import training
from pipeline.runs.training.checkpoints import TrainingCheckpoints
from pipeline.runs.training.learners import Classifier, DufmNetwork, DufmPenalty
from pipeline.runs.training.training import calibrate_norms, train
from pipeline.runtime.errors import RunError
from pipeline.runtime.randomness import generator
from pipeline.storage.record import Record


def config(**changes) -> Config:
    names = {
        "data.name": "digits",
        "backbone.name": "mlp",
        "optimizer.name": "sgd",
        "protocol.name": "frozen_features",
        "logger.name": "none",
        "trainer.accelerator": "cpu",
        "backbone.hidden": [16, 8],
        "backbone.epochs": 2,
    }
    cfg = OmegaConf.structured(Config)
    for key, value in {**names, **{key.replace("__", "."): value for key, value in changes.items()}}.items():
        OmegaConf.update(cfg, key, value)
    return settings(cfg)


def fit(
    folder: Path, settings_: Config, schedule=(), measure=lambda learner, epoch: None, finished=lambda: False
) -> Classifier:
    images = load_images("digits", classes=[0, 1], samples_per_class=50)
    backbone = build_backbone("mlp", images.image_shape, hidden=settings_.backbone.hidden)
    learner = Classifier(
        backbone,
        images.num_classes,
        load_objective(settings_.backbone.loss),
        settings_.optimizer,
        settings_.backbone.epochs,
        settings_.seed,
    )
    checkpoints = TrainingCheckpoints(folder / "checkpoints" / "backbone.ckpt", "key", Record(folder), seconds=0)
    train(learner, images, settings_, list(schedule), lambda epoch: str(measure(learner, epoch)), checkpoints, finished)
    return learner


def test_a_seed_decides_the_result_whatever_the_global_generator_is_at(tmp_path):
    runs = []
    for index in range(2):
        torch.manual_seed(index)
        module = fit(tmp_path / str(index), config())
        runs.append(torch.cat([parameter.flatten() for parameter in module.parameters()]))
    assert torch.equal(*runs)
    other = fit(tmp_path / "other", config(seed=1))
    assert not torch.equal(runs[0], torch.cat([parameter.flatten() for parameter in other.parameters()]))


@pytest.mark.parametrize("head", ["classifier", "dufm"])
def test_a_training_is_the_plain_loop_over_its_batches(tmp_path, head):
    """To the rounding of float32, over epochs of two and a half rounds, with momentum, decay and a schedule."""
    setting = config(backbone__epochs=3, backbone__batch_size=4, optimizer__schedule="cosine")
    images = load_images("digits", classes=[0, 1], samples_per_class=50)
    assert len(images.train) == 100
    backbone = build_backbone("mlp", images.image_shape, hidden=[16, 8])
    if head == "classifier":
        learner = Classifier(backbone, 2, load_objective("cross_entropy"), setting.optimizer, 3, 0)
    else:
        weights = [torch.randn(4, 8, generator=generator(0, "a")), torch.randn(2, 4, generator=generator(0, "b"))]
        learner = DufmNetwork(
            backbone, weights, "relu", load_objective("mse"), DufmPenalty((1e-3, 2e-3), 1e-4, 100), setting.optimizer, 3
        )
    plain = copy.deepcopy(learner)
    checkpoints = TrainingCheckpoints(tmp_path / "backbone.ckpt", "key", Record(tmp_path), seconds=1e9)
    train(learner, images, setting, [], lambda epoch: "", checkpoints)

    decay = setting.optimizer.weight_decay if head == "classifier" else 0.0
    optimizer = torch.optim.SGD(plain.parameters(), setting.optimizer.lr, momentum=0.9, weight_decay=decay)
    loader = ResidentLoader(images.train, 4, seed=0, standardise=images.standardise)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = setting.optimizer.lr * (1 + math.cos(math.pi * epoch / 3)) / 2
        loader.set_epoch(epoch)
        for batch, labels in loader:
            features = plain.backbone(batch)
            if head == "classifier":
                loss = nn.functional.cross_entropy(plain.head(features), labels)
            else:
                outputs = torch.relu(features @ weights_of(plain)[0].T) @ weights_of(plain)[1].T
                loss = (outputs - nn.functional.one_hot(labels, 2)).square().sum(1).mean() / 2
                loss = loss + 100 / len(labels) * 1e-4 / 2 * features.square().sum()
                loss = loss + sum(
                    c / 2 * w.square().sum() for c, w in zip((1e-3, 2e-3), weights_of(plain), strict=True)
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert learner.trainer.global_step == 75
    for found, expected in zip(learner.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class Ending(TrainingCheckpoints):
    """Ends the training after so many checkpoints."""

    left = -1

    def _save(self, *arguments) -> None:
        super()._save(*arguments)
        self.left -= 1
        if not self.left:
            raise EOFError


def trained(folder: Path, *ends: int) -> Classifier:
    """Attempts at one training, one after another, each of which ends after so many checkpoints; -1: does not."""
    setting = config(backbone__epochs=2, backbone__batch_size=4, optimizer__schedule="cosine")
    images = load_images("digits", classes=[0, 1], samples_per_class=50)
    for left in ends:
        learner = Classifier(
            build_backbone("mlp", (1, 8, 8), hidden=[16, 8]), 2, load_objective("mse"), setting.optimizer, 2, 0
        )
        keeping = Ending(folder / "backbone.ckpt", "key", Record(folder), seconds=0)
        keeping.left = left
        with nullcontext() if left < 0 else pytest.raises(EOFError):
            train(learner, images, setting, [], lambda epoch: "", keeping)
    return learner


BROKEN = {
    "a weight is missing": lambda content: content["state_dict"].popitem(),
    "a weight has another shape": lambda content: content["state_dict"].update({"classifier.weight": torch.zeros(7)}),
    "no optimizer": lambda content: content.update(optimizer_states=[{}]),
    "no loop": lambda content: content.update(loops={"fit_loop": {}}),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_checkpoint_from_which_training_cannot_begin_is_named_and_the_one_before_it_used(
    broken, last, tmp_path, caplog
):
    undisturbed = trained(tmp_path / "a", -1)
    trained(tmp_path / "b", 3)
    path = tmp_path / "b" / "backbone.ckpt"
    if last:
        path.with_name("backbone.previous.ckpt").unlink()
    content = torch.load(path, weights_only=True)
    BROKEN[broken](content)
    torch.save(content, path)
    caplog.set_level("INFO", logger="pipeline")
    resumed = trained(tmp_path / "b", -1)
    assert f"{path} is damaged" in caplog.text and ("step 20)" in caplog.text) is not last
    for found, expected in zip(resumed.state_dict().values(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("checkpoints", "step"), [(1, 10), (2, 20), (3, 25), (4, 35), (5, 45)])
def test_a_training_goes_on_from_between_two_rounds_as_if_it_had_not_ended(tmp_path, checkpoints, step, caplog):
    """Epochs of 25 batches have checkpoints after 10, 20 and 25 of them."""
    caplog.set_level("INFO", logger="pipeline")
    undisturbed, resumed = trained(tmp_path / "a", -1), trained(tmp_path / "b", checkpoints, -1)
    assert caplog.text.count("going on from") == 1 and f"step {step})" in caplog.text
    assert resumed.trainer.global_step == 50
    for found, expected in zip(resumed.state_dict().values(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("early", [False, True])
def test_a_training_that_had_ended_brings_back_what_was_measured(early, tmp_path):
    """A run killed between the end of its training and the file of its network."""
    setting = config(backbone__epochs=4)
    images = load_images("digits", classes=[0, 1], samples_per_class=50)
    found = []
    for left in (1, -1):
        backbone = build_backbone("mlp", images.image_shape, hidden=[16, 8])
        learner = Classifier(backbone, 2, load_objective("mse"), setting.optimizer, 4, 0)
        record = Record(tmp_path)
        keeping = Ending(tmp_path / "backbone.ckpt", "key", record, seconds=1e9)
        keeping.left = left

        def measure(epoch: int, record=record) -> str:
            record.add("backbone", epoch, [0], {"dnc1": [float(epoch)]}, layer="hidden1", tap="post")
            return ""

        finished = lambda record=record: early and len(record.rows) == 2  # noqa: E731
        with pytest.raises(EOFError) if left > 0 else nullcontext():
            train(learner, images, setting, [1, 2, 4], measure, keeping, finished)
        found.append((record.rows, [value.clone() for value in learner.state_dict().values()]))
    assert found[0][0] == found[1][0] and [row.step for row in found[1][0]] == ([1, 2] if early else [1, 2, 4])
    assert all(torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))


def weights_of(learner: DufmNetwork) -> list[torch.Tensor]:
    return list(learner.head.parameters())


def test_measurements_come_before_training_and_after_the_scheduled_epochs(tmp_path):
    seen = []
    fit(tmp_path, config(backbone__epochs=4), [0, 1, 4], lambda learner, epoch: seen.append(epoch))
    assert seen == [0, 1, 4]


def test_training_ends_at_the_first_measurement_that_finds_it_finished(tmp_path):
    seen = []
    learner = fit(
        tmp_path,
        config(backbone__epochs=50),
        [0, 2, 5, 10, 50],
        lambda learner, epoch: seen.append(epoch),
        lambda: len(seen) >= 3,
    )
    assert seen == [0, 2, 5] and learner.trainer.current_epoch == 5


def test_training_lowers_the_loss_and_leaves_a_checkpoint_of_plain_tensors(tmp_path):
    losses = []
    images = load_images("digits", classes=[0, 1], samples_per_class=50)

    def measure(learner, epoch):
        features = learner.backbone(images.standardise(images.train.images))
        losses.append(learner.score(features.detach(), images.train.labels)[0])

    fit(tmp_path, config(backbone__epochs=5, backbone__batch_size=8), [0, 5], measure)
    assert losses[1] < 0.3 * losses[0]
    state = torch.load(tmp_path / "checkpoints" / "backbone.ckpt", weights_only=True)
    assert state["epoch"] == 4 and "backbone.network.hidden1.0.weight" in state["state_dict"]


def test_a_batch_larger_than_the_data_is_one_batch_of_all(tmp_path):
    assert fit(tmp_path, config(backbone__batch_size=10_000)).trainer.global_step == 2


def test_divergence_stops_the_training_with_advice(tmp_path):
    with pytest.raises(RunError, match=r"diverged.*optimizer\.lr \(now 1e\+30\)"):
        fit(tmp_path, config(optimizer__lr=1e30, backbone__epochs=50))


def test_batch_norms_of_an_untrained_backbone_start_at_the_statistics_of_the_images():
    images = load_images("digits", classes=[0, 1], samples_per_class=64)
    backbone = build_backbone("resnet20", images.image_shape)
    before = {name: tensor.clone() for name, tensor in backbone.named_parameters()}
    backbone.train()
    calibrate_norms(backbone, images, batch_size=32, seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.named_parameters())
    assert all(module.training for module in backbone.modules())
    norm, seen = backbone.network.bn1, []
    with torch.no_grad():
        seen = backbone.network.conv1(images.standardise(images.train.images))
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert norm.momentum == 0.1
    with torch.no_grad():
        features = backbone.eval()(images.standardise(images.train.images))
    assert 0.1 < features.square().mean() < 10


def test_a_backbone_without_batch_norm_is_left_alone():
    images = load_images("digits", classes=[0, 1], samples_per_class=20)
    backbone = build_backbone("mlp", images.image_shape)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    calibrate_norms(backbone, images, batch_size=32, seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


class Frozen(nn.Module):
    """Two norms: one that is fed in training, one that the class keeps in evaluation mode if asked to."""

    def __init__(self, kept: bool):
        super().__init__()
        self.conv, self.own, self.other = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.kept = kept

    def train(self, mode: bool = True):
        super().train(mode)
        self.own.train(mode and not self.kept)
        return self

    def forward(self, x):
        return self.other(self.own(self.conv(x)))


@pytest.mark.parametrize("made", ["counted", "uncounted", "kept in evaluation mode"])
def test_statistics_that_somebody_else_made_are_left_alone(made):
    images = load_images("digits", classes=[0, 1], samples_per_class=20)
    network = Frozen(kept=made.startswith("kept"))
    if made == "counted":
        network.own.num_batches_tracked.fill_(3)
    elif made == "uncounted":  # of a file from before there was a count
        network.own.running_mean.fill_(0.5)
    before = {name: value.clone() for name, value in network.own.state_dict().items()}
    backbone = Backbone(network.train(), images.image_shape, name="own")
    calibrate_norms(backbone, images, batch_size=16, seed=0)
    assert all(torch.equal(before[name], value) for name, value in network.own.state_dict().items())
    assert network.other.num_batches_tracked > 0 and not (network.other.running_var == 1).all()


def test_the_generator_of_a_gpu_is_seeded_for_every_rank_of_its_own(monkeypatch):
    """It cannot be looked at without one: what it is told is."""
    told = []
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "manual_seed", told.append)
    setting = config()
    monkeypatch.setattr(type(setting), "device", torch.device("cuda"))
    with torch.random.fork_rng(devices=[]):
        for rank in (0, 1, 0):
            monkeypatch.setattr(training.ranks, "rank", lambda rank=rank: rank)
            training._seed_generators(setting)
    assert told[0] == told[2] != told[1]


def test_a_gpu_that_is_not_wanted_is_no_warning(tmp_path, monkeypatch):
    """Warnings are errors here."""
    monkeypatch.setattr("pytorch_lightning.accelerators.CUDAAccelerator.is_available", staticmethod(lambda: True))
    fit(tmp_path, config(backbone__epochs=1))

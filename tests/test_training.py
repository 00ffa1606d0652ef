"""Training of a backbone: the losses it states, the same result for the same seed, and an early stop at NaN."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from pipeline.backbones import build_backbone
from pipeline.config import Config, settings
from pipeline.data import load_images
from pipeline.errors import RunError
from pipeline.training import Classifier, train


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


def fit(folder: Path, settings_: Config, schedule=(), measure=lambda module, epoch: None) -> Classifier:
    images = load_images("digits", classes=[0, 1], samples_per_class=50)
    backbone = build_backbone("mlp", images.image_shape, hidden=settings_.backbone.hidden)
    return train(backbone, images, settings_, folder, list(schedule), measure)


def test_mse_is_half_the_squared_distance_to_the_one_hot_target():
    module = Classifier(build_backbone("mlp", (1, 8, 8), hidden=[4]), 3, "mse", config().optimizer, 1)
    outputs, labels = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    assert module.objective(outputs, labels).item() == pytest.approx((0.25 / 2 + 1 / 2) / 2)


def test_cross_entropy_of_uniform_outputs_is_log_k():
    module = Classifier(build_backbone("mlp", (1, 8, 8), hidden=[4]), 4, "cross_entropy", config().optimizer, 1)
    assert module.objective(torch.zeros(2, 4), torch.tensor([0, 3])).item() == pytest.approx(4**0.0 * 1.3862943611)


def test_a_seed_decides_the_result_whatever_the_global_generator_is_at(tmp_path):
    runs = []
    for index in range(2):
        torch.manual_seed(index)
        module = fit(tmp_path / str(index), config())
        runs.append(torch.cat([parameter.flatten() for parameter in module.parameters()]))
    assert torch.equal(*runs)
    other = fit(tmp_path / "other", config(seed=1))
    assert not torch.equal(runs[0], torch.cat([parameter.flatten() for parameter in other.parameters()]))


def test_measurements_come_before_training_and_after_the_scheduled_epochs(tmp_path):
    seen = []
    fit(tmp_path, config(backbone__epochs=4), [0, 1, 4], lambda module, epoch: seen.append(epoch))
    assert seen == [0, 1, 4]


def test_training_lowers_the_loss_and_leaves_a_checkpoint_of_plain_tensors(tmp_path):
    losses = []
    images = load_images("digits", classes=[0, 1], samples_per_class=50)

    def measure(module, epoch):
        features = module.backbone(images.standardise(images.train.images))
        losses.append(module.score(features.detach(), images.train.labels)[0])

    fit(tmp_path, config(backbone__epochs=5, backbone__batch_size=8), [0, 5], measure)
    assert losses[1] < 0.3 * losses[0]
    state = torch.load(tmp_path / "checkpoints" / "backbone.ckpt", weights_only=True)
    assert state["epoch"] == 4 and "backbone.network.hidden1.0.weight" in state["state_dict"]


def test_a_batch_larger_than_the_data_is_one_batch_of_all(tmp_path):
    assert fit(tmp_path, config(backbone__batch_size=10_000)).trainer.global_step == 2


def test_divergence_stops_the_training_with_advice(tmp_path):
    with pytest.raises(RunError, match=r"diverged.*optimizer\.lr \(now 1e\+30\)"):
        fit(tmp_path, config(optimizer__lr=1e30, backbone__epochs=50))

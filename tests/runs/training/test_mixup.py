"""Mixing of images: what is mixed, that it belongs to seed, epoch and batch, the loss, and what it does not go with."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from pipeline.config import OptimizerConfig, conf_folder
from pipeline.config.messages import register
from pipeline.dufm.objectives import load_objective
from pipeline.networks import build_backbone
from pipeline.runs.checking import checked
from pipeline.runs.training.learners import Classifier
from pipeline.runs.training.mixup import mixed
from pipeline.runtime.errors import ConfigError


def test_images_are_mixed_with_others_by_one_weight():
    images = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = mixed(images, 0.4, 3, 1, 5)
    again, other = mixed(images, 0.4, 3, 1, 5), mixed(images, 0.4, 3, 2, 5)
    assert 0 < found.share < 1 and sorted(found.others.tolist()) == list(range(6))
    assert torch.equal(found.images, found.share * images + (1 - found.share) * images[found.others])
    assert torch.equal(found.images, again.images) and other.share != found.share


def test_weights_have_the_moments_of_their_distribution():
    images = torch.zeros(2, 1)
    shares = torch.tensor([mixed(images, 0.5, 0, epoch, 0).share for epoch in range(2000)])
    assert abs(float(shares.mean()) - 0.5) < 0.04 and abs(float(shares.var()) - 1 / 8) < 0.01  # 1/(4 (2 alpha + 1))


def test_the_loss_is_that_of_both_labels():
    learner = Classifier(
        build_backbone("mlp", (1, 2, 2), hidden=[3]), 3, load_objective("cross_entropy"), OptimizerConfig("sgd"), 1, 0
    )
    images, labels = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])
    mixing = mixed(images, 1.0, 0, 0, 0)
    found = learner(mixing.images, labels, mixing=mixing)
    goals = nn.functional.one_hot(labels, 3).float()
    soft = mixing.share * goals + (1 - mixing.share) * goals[mixing.others]
    outputs = learner.head(learner.backbone(mixing.images))
    torch.testing.assert_close(found, nn.functional.cross_entropy(outputs, soft))


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["protocol=end_to_end"], "protocol=end_to_end"),
        (["protocol=network", "optimizer=lbfgs", "optimizer.weight_decay=0"], "optimizer.name=lbfgs"),
        (["protocol=network", "data=pydoc", "backbone=transformer"], "data=pydoc"),
    ],
)
def test_what_it_does_not_go_with_is_told(overrides, what):
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        composed = compose("main", ["data=digits", *overrides, "logger=none", "trainer=cpu", "backbone.mixup=0.2"])
    with pytest.raises(ConfigError, match=f"backbone.mixup=0.2 does not go with {what}; allowed: 0, or"):
        checked(composed)

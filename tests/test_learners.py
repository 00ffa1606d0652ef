"""Learners: the loss they state for a batch."""

import pytest
import torch

from pipeline.backbones import build_backbone
from pipeline.config import OptimizerConfig
from pipeline.learners import Classifier

SGD = OptimizerConfig(name="sgd")


def test_mse_is_half_the_squared_distance_to_the_one_hot_target():
    module = Classifier(build_backbone("mlp", (1, 8, 8), hidden=[4]), 3, "mse", SGD, 1, 0)
    outputs, labels = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    assert module.objective(outputs, labels).item() == pytest.approx((0.25 / 2 + 1 / 2) / 2)


def test_cross_entropy_of_uniform_outputs_is_log_k():
    module = Classifier(build_backbone("mlp", (1, 8, 8), hidden=[4]), 4, "cross_entropy", SGD, 1, 0)
    assert module.objective(torch.zeros(2, 4), torch.tensor([0, 3])).item() == pytest.approx(4**0.0 * 1.3862943611)

"""Learners: the loss they state for a batch."""

import pytest
import torch

from pipeline import dufm
from pipeline.config import OptimizerConfig
from pipeline.dufm.objectives import load_objective
from pipeline.networks import build_backbone
from pipeline.runs.training.learners import Classifier, DufmNetwork, DufmPenalty

SGD = OptimizerConfig(name="sgd", weight_decay=0.3)


def classifier(num_classes: int, loss: str) -> Classifier:
    return Classifier(build_backbone("mlp", (1, 8, 8), hidden=[4]), num_classes, load_objective(loss), SGD, 1, 0)


def network(penalty: DufmPenalty | None = None, loss: str = "mse", **options) -> DufmNetwork:
    weights = dufm.initial_weights([4, 5], 2, [torch.Generator().manual_seed(0)])
    backbone = build_backbone("mlp", (1, 8, 8), hidden=[4])
    return DufmNetwork(
        backbone, [weight[0] for weight in weights], "relu", load_objective(loss), penalty, SGD, 1, **options
    )


def test_mse_is_half_the_squared_distance_to_the_one_hot_target():
    outputs, labels = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    loss = classifier(3, "mse").objective(torch.empty(2, 4), outputs, labels)
    assert loss.item() == pytest.approx((0.25 / 2 + 1 / 2) / 2)


def test_cross_entropy_of_uniform_outputs_is_log_k():
    loss = classifier(4, "cross_entropy").objective(torch.empty(2, 4), torch.zeros(2, 4), torch.tensor([0, 3]))
    assert loss.item() == pytest.approx(1.3862943611)


def test_the_batches_of_an_epoch_average_to_the_dufm_objective():
    learner = network(DufmPenalty((1e-2, 3e-2), 1e-3, num_samples=12))
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(12, 4, generator=generator), torch.arange(2).repeat(6)
    with torch.no_grad():
        batches = [
            learner.objective(rows, learner.head(rows), classes).item()
            for rows, classes in zip(features.split(4), labels.split(4), strict=True)
        ]
        whole = learner.objective(features, learner.head(features), labels).item()
        weights = [weight.double() for weight in learner.weights]
        expected = dufm.objective(features.double(), weights, labels, torch.tensor([1e-2, 3e-2]), 1e-3).total.item()
    assert sum(batches) / 3 == pytest.approx(expected, rel=1e-6) and whole == pytest.approx(expected, rel=1e-6)


def test_penalties_in_the_loss_leave_nothing_to_the_optimizer():
    optimizers, _ = network(DufmPenalty((1e-2, 1e-2), 1e-3, 10)).configure_optimizers()
    assert [group["weight_decay"] for group in optimizers[0].param_groups] == [0.0]


def test_standard_regularisation_decays_backbone_and_head_alike():
    learner = network()
    optimizers, _ = learner.configure_optimizers()
    (group,) = optimizers[0].param_groups
    assert group["weight_decay"] == 0.3 and len(group["params"]) == len(list(learner.parameters())) == 4
    outputs, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    assert learner.objective(torch.ones(1, 4), outputs, labels).item() == pytest.approx(1.0)


def test_a_frozen_head_is_not_trained():
    learner = network(frozen_head=True)
    optimizers, _ = learner.configure_optimizers()
    trained = {id(parameter) for parameter in optimizers[0].param_groups[0]["params"]}
    assert trained == {id(parameter) for parameter in learner.backbone.parameters()}

"""What theory says of a head: closed forms where they apply, and which part of the features a head cannot see."""

from dataclasses import replace

import pytest
import torch

from pipeline.config import Config, HeadConfig, OptimizerConfig, ProtocolConfig
from pipeline.dufm import objective
from pipeline.runs.known import known_of, problem_of
from pipeline.runs.solutions import Features, HeadSolution, network_head, unseen_share


def config(regularization: str = "dufm") -> Config:
    return Config(
        optimizer=OptimizerConfig(name="sgd", weight_decay=3e-4),
        head=HeadConfig(depth=2, width=4, weight_decay=5e-3, feature_decay=5e-6),
        protocol=ProtocolConfig(regularization=regularization),
    )


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.arange(2).repeat(5)


def head(regularization: str = "dufm", frozen: bool = False) -> HeadSolution:
    features = Features(draw(10, 6), LABELS, draw(4, 6), LABELS[:4])
    return network_head(config(regularization), features, (draw(1, 4, 6), draw(1, 2, 4)), frozen=frozen)


def test_a_network_with_the_dufms_penalties_is_compared_with_its_closed_form():
    found = head()
    problem, reason = problem_of(found)
    assert reason is None
    assert (problem.num_classes, problem.samples_per_class, problem.depth) == (2, 5, 2)
    assert problem.weight_decays == (5e-3, 5e-3) and problem.feature_decay == 5e-6
    expected = objective(found.features, found.weights, LABELS, torch.tensor([5e-3, 5e-3], dtype=torch.float64), 5e-6)
    assert torch.equal(found.objective.total, expected.total)


def test_with_standard_decay_the_features_carry_no_penalty_and_there_is_no_closed_form():
    found = head(regularization="standard")
    assert found.weight_decays == (3e-4, 3e-4) and found.feature_decay is None
    assert found.objective.feature_penalty.item() == 0
    assert problem_of(found) == (None, "the features carry no penalty of their own")


def test_a_fixed_head_is_a_dufms_whatever_the_decay_of_the_backbone():
    assert head("standard", frozen=True).objective.total.equal(head("dufm").objective.total)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": "frozen", "feature_decay": None}, "the input features are frozen"),
        ({"weights": (draw(1, 1, 6), draw(1, 2, 1))}, "a layer is narrower than the number of classes (1 < 2)"),
        ({"weight_decays": (0.0, 5e-3)}, "a weight decay is zero"),
    ],
)
def test_where_no_closed_form_applies_the_reason_is_said(change, reason):
    known = known_of(replace(head(), **change))
    assert known.yardstick is None and known.reason == reason


def test_what_the_first_weight_does_not_see_is_measured_by_its_squared_norm():
    weight = torch.zeros(4, 6, dtype=torch.float64)
    weight[:2, :2] = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    weight[2, 2] = 1e-6  # of no effect: below a thousandth of the largest singular value
    features = torch.tensor([[3.0, 0, 0, 4.0, 0, 0], [0, 0, 1.0, 0, 0, 0]], dtype=torch.float64)
    assert unseen_share(features, weight) == pytest.approx((16 + 1) / (9 + 16 + 1))
    assert unseen_share(features[:, :2], weight[:, :2]) == pytest.approx(0, abs=1e-12)
    rotation = torch.linalg.qr(draw(6, 6)).Q
    assert unseen_share(features @ rotation, weight @ rotation) == pytest.approx(17 / 26)

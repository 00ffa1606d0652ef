"""Training towards fixed centres: how many and which there are, golden values, and that features come to them."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir

from pipeline.config import OptimizerConfig, conf_folder
from pipeline.config.messages import register
from pipeline.networks import build_backbone
from pipeline.runs.checking import checked
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare
from pipeline.runs.training.fixed_centres import CentreLearner, centre_counts, least_loss, make_centres, make_simplex
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_record, read_summary

LABELS = torch.tensor([0] * 6 + [1] * 4 + [2] * 2)


@pytest.fixture
def rows():
    """The input T of the specification."""
    entries = [[math.sin(0.7 * i + 1.3 * j + 0.45 * i * j) for j in range(4)] for i in range(12)]
    return torch.tensor(entries, dtype=torch.float64) + 1.5 * torch.eye(4, dtype=torch.float64)[LABELS]


def test_golden_values(rows):
    angles = [[[1 + 0.8 * c + 1.7 * j + 0.9 * k + 0.5 * c * k for k in range(4)] for j in range(2)] for c in range(3)]
    centres = torch.nn.functional.normalize(torch.tensor(angles, dtype=torch.float64).cos(), dim=-1)
    known = torch.tensor([0.381717631436, -0.228400520210, -0.665669711678, -0.599173336500], dtype=torch.float64)
    torch.testing.assert_close(centres[0, 0], known, rtol=1e-10, atol=0)
    sgd = OptimizerConfig(name="sgd")
    learner = CentreLearner(build_backbone("mlp", (4, 1, 1), hidden=[4]).double(), list(centres), sgd, 1)
    learner.head.weight = centres.mean(dim=1)
    assert learner.fit(rows, learner.decide(rows), LABELS).item() == pytest.approx(1.061777882875, rel=1e-10)
    found = learner.measured(rows, LABELS)
    expected = {"centre_mean": 1.102176375546, "centre_std": 0.347478582015, "least_loss": 0.332040164606}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert (learner.decide(rows).argmax(1) == LABELS).double().mean().item() == pytest.approx(7 / 12)


def test_smaller_classes_have_more_centres():
    assert centre_counts([100, 25, 1, 0], 4, 30) == [4, 8, 30, 4]


@pytest.mark.parametrize(("count", "angle", "loss"), [(20, 0.2, 0.704202725082), (4, 0.5, 0.350087209466), (1, 0.3, 0)])
def test_orthonormal_centres_have_the_least_loss_of_the_closed_form(count, angle, loss):
    centres = make_centres([count] * 3, 70, angle, torch.Generator().manual_seed(0))
    gram = torch.cat(centres) @ torch.cat(centres).mT
    of_class = torch.block_diag(*[torch.full((count, count), math.sin(angle) ** 2)] * 3)
    assert torch.allclose(gram, of_class.fill_diagonal_(1).double(), atol=1e-7)
    assert least_loss(centres, torch.full((3,), 1 / 3)) == pytest.approx(loss, abs=1e-7)


@pytest.mark.parametrize(("classes", "dim"), [(4, 3), (4, 9), (2, 1)])
def test_a_simplex_has_one_centre_per_class_and_no_loss_below_zero(classes, dim):
    centres = make_simplex(classes, dim, torch.Generator().manual_seed(0))
    gram = torch.cat(centres) @ torch.cat(centres).mT
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
    assert torch.allclose(gram, expected) and least_loss(centres, torch.full((classes,), 1 / classes)) < 1e-12
    few = build_backbone("mlp", (4, 1, 1), hidden=[2])
    with pytest.raises(ConfigError, match="needs 3 features for 4 classes, and the backbone has 2"):
        CentreLearner.drawn(few, [1] * 4, 20, 100, 0.2, "simplex", 0, OptimizerConfig(name="sgd"), 1)


def test_beyond_the_dimension_centres_are_of_length_one():
    centres = torch.cat(make_centres([5, 5], 4, 0.2, torch.Generator().manual_seed(0)))
    assert torch.allclose(centres.norm(dim=1), torch.ones(10, dtype=torch.float64))


def test_features_come_to_the_sum_of_their_centres(tmp_path):
    register()

    def configured(*overrides):
        own = ["protocol=network", "data.samples_per_class=20", "backbone.hidden=[16,12]", "logger=none", "trainer=cpu"]
        own += ["trainer.threads=1", "record.figures=false", "backbone.loss=centres", "backbone.centres=3"]
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            return checked(compose("main", [*own, *overrides]))

    config = configured("backbone.epochs=15", "optimizer=adam", "optimizer.lr=0.02", "protocol.every=15")
    execute(config, prepare(config), tmp_path)
    record, summary = read_record(tmp_path), read_summary(tmp_path)
    values = {
        name: part.sort_values("step").value.tolist() for name, part in record[record.layer == ""].groupby("metric")
    }
    assert values["centre_mean"][1] < 0.5 * values["centre_mean"][0]
    assert values["train_loss"][1] > values["least_loss"][1] > 0
    assert {"test_centre_std", "test_balanced_accuracy"} <= values.keys()
    assert summary["backbone_layers"][-1]["layer"] == "classifier"
    with pytest.raises(ConfigError, match=r"backbone.loss=centres does not go with protocol=frozen_features"):
        configured("protocol=frozen_features")

"""Weight decay as a term of the loss: its value, its gradient, full batches in double precision, and refusals."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from pipeline.config import OptimizerConfig, conf_folder
from pipeline.config.messages import register
from pipeline.data import ImageData, Split
from pipeline.dufm.objectives import load_objective
from pipeline.networks import build_backbone
from pipeline.runs.checking import checked
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare
from pipeline.runs.training.learners import Classifier
from pipeline.runs.training.objective import WeightPenalty, measured_objective
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_record, read_summary

SMALL = ["protocol=network", "data=digits", "data.samples_per_class=10", "backbone.hidden=[6,5]", "logger=none"]
SMALL += ["trainer=cpu", "trainer.threads=1", "record.figures=false", "backbone.loss=cross_entropy"]
FULL = ["backbone.batch_size=0", "trainer.precision=float64", "protocol.regularization=objective"]


@pytest.fixture(scope="module")
def configured():
    register()

    def make(*overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            return checked(compose("main", [*SMALL, *overrides]))

    return make


def learner_of(backbone, shares="equal", decay=0.3):
    sgd = OptimizerConfig(name="sgd", weight_decay=decay)
    penalty = WeightPenalty(decay, shares)
    return Classifier(backbone.double(), 2, load_objective("cross_entropy"), sgd, 1, 0, bias=False, penalty=penalty)


def test_the_penalty_counts_every_trained_parameter_and_the_optimizer_decays_none():
    backbone = build_backbone("mlp", (1, 2, 2), hidden=[5, 3], norm="batch")
    learner = learner_of(backbone)
    total = sum(parameter.square().sum() for parameter in learner.parameters())
    assert learner.penalty_of_weights().item() == pytest.approx(0.15 * total.item(), rel=1e-12)
    [optimizer], _ = learner.configure_optimizers()
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    depth = learner_of(backbone, "depth").penalty_of_weights().item()
    assert depth == pytest.approx(0.15 * total.item() / 2, rel=1e-12)


def test_a_leaky_network_is_penalised_by_its_steps():
    backbone = build_backbone("residual_mlp", (1, 2, 2), width=4, depth=5, leak=2.0, steps="irregular")
    learner = learner_of(backbone, "steps")
    blocks = zip(backbone.network.rho, backbone.network.blocks, strict=True)
    expected = sum(
        rho / 2 * (block.outer.weight.square().sum() + block.outer.bias.square().sum()) for rho, block in blocks
    )
    expected = 0.15 * (expected + learner.head.weight.square().sum())
    assert learner.penalty_of_weights().item() == pytest.approx(expected.item(), rel=1e-12)


def test_objective_and_gradient_are_those_of_all_images(monkeypatch):
    monkeypatch.setattr("pipeline.runs.training.objective.CHUNK", 3)
    rows, labels = torch.randn(8, 4, 1, 1), torch.tensor([0, 1] * 4)
    images = ImageData.from_splits("own", Split(rows, labels), Split(rows, labels), ("a", "b"))
    learner = learner_of(build_backbone("mlp", (4, 1, 1), hidden=[5, 3], activation="tanh"))
    found = measured_objective(learner, images)
    features = learner.backbone(rows)
    loss = torch.nn.functional.cross_entropy(learner.head(features), labels)
    loss = loss + 0.15 * sum(parameter.square().sum() for parameter in learner.parameters())
    gradients = torch.autograd.grad(loss, list(learner.parameters()))
    norm = sum(gradient.square().sum() for gradient in gradients).sqrt()
    assert found["objective"] == pytest.approx(loss.item(), rel=1e-12)
    assert found["gradient_norm"] == pytest.approx(norm.item(), rel=1e-12)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_full_batches_in_double_precision_end_at_a_stationary_point(optimizer, configured, tmp_path):
    epochs = {"lbfgs": 6, "adam": 3}[optimizer]
    which = [f"optimizer={optimizer}", "optimizer.weight_decay=0.05", "backbone.activation=tanh"]
    config = configured(*which, *FULL, f"backbone.epochs={epochs}", "optimizer.iterations=60")
    inputs = prepare(config)
    assert next(inputs.backbone.parameters()).dtype == torch.float64
    execute(config, inputs, tmp_path)
    record, summary = read_record(tmp_path), read_summary(tmp_path)
    values = {
        name: rows.sort_values("step").value.tolist() for name, rows in record[record.layer == ""].groupby("metric")
    }
    assert values["objective"][-1] < values["objective"][0]
    assert values["objective"][-1] == pytest.approx(values["train_loss"][-1] + values["penalty"][-1], rel=1e-12)
    if optimizer == "lbfgs":
        assert values["gradient_norm"][-1] < 1e-7
    assert summary["status"] == "completed" and record.step.max() == epochs


def test_a_head_that_is_trained_along_is_penalised_too(configured, tmp_path):
    config = configured(
        "protocol=end_to_end", "backbone.loss=mse", "head.depth=2", "head.width=4", *FULL, "optimizer=adam"
    )
    config.backbone.epochs = 2
    execute(config, prepare(config), tmp_path)
    record = read_record(tmp_path)
    assert {"objective", "gradient_norm"} <= set(record[record.stage == "backbone"].metric)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["protocol.regularization=dufm"], "needs a DUFM head"),
        (["protocol.penalty_weights=depth"], "needs protocol.regularization=objective"),
        (["protocol.regularization=objective", "protocol.penalty_weights=steps"], "needs a leaky network"),
        (["optimizer=lbfgs", "optimizer.weight_decay=0.1"], "optimizer.weight_decay=0.1 is nothing that"),
        (["protocol=fixed_head", "backbone.loss=mse", "protocol.regularization=objective"], "does not go with"),
    ],
)
def test_what_cannot_be_penalised_is_refused(overrides, words, configured):
    with pytest.raises(ConfigError, match=words):
        configured(*overrides)


def test_line_search_wants_all_images_at_once(configured):
    with pytest.raises(ConfigError, match=r"optimizer.name=lbfgs needs all 20 images"):
        prepare(configured("optimizer=lbfgs", "backbone.batch_size=8"))

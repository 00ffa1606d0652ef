"""What is known of networks with features of fixed length, and that their gaps count from there."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from pipeline.config import conf_folder
from pipeline.config.messages import register
from pipeline.metrics import layer_metrics
from pipeline.runs.checking import checked
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare
from pipeline.runs.network_references import exactly_normalised, reference_of
from pipeline.storage.record import read_record, read_summary
from pipeline.theory import bn_optimum, gufm_optimum

SMALL = ["protocol=network", "data=digits", "data.samples_per_class=10", "logger=none", "trainer=cpu"]
SMALL += ["trainer.threads=1", "record.figures=false", "backbone.loss=cross_entropy", "backbone.classifier_bias=false"]
NORMED = ["backbone=mlp", "backbone.hidden=[6,5]", "backbone.norm=batch", "backbone.norm_bias=false"]
RESIDUAL = ["backbone=residual_mlp", "backbone.depth=2", "backbone.width=64"]
PATCHES = ["backbone=patch_transformer", "backbone.depth=1", "backbone.width=8"]


@pytest.fixture(scope="module")
def configured():
    register()

    def make(*overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            return checked(compose("main", [*SMALL, *overrides]))

    return make


def known(configured, *overrides):
    config = configured(*overrides)
    inputs = prepare(config)
    return reference_of(config, inputs.backbone, inputs.images)


def test_rows_of_a_batch_norm_are_normalised_by_themselves():
    rows, gain = torch.randn(30, 3) * 4 + 2, torch.tensor([1.0, -2.0, 0.5])
    rows[:, 2] = 7.0
    found = exactly_normalised(rows, gain)
    assert torch.allclose(found.square().mean(0), torch.tensor([1.0, 4.0, 0.0], dtype=torch.float64))
    assert found.mean(0).abs().max() < 1e-12
    again = exactly_normalised(3 * rows - 1, gain)
    assert torch.allclose(again, found)


def test_golden_rows_behind_a_batch_norm():
    i, j = torch.meshgrid(torch.arange(12.0).double(), torch.arange(4.0).double(), indexing="ij")
    labels, gain = torch.tensor([0] * 6 + [1] * 4 + [2] * 2), torch.tensor([1.0, 2.0, 0.5, 1.5]).double()
    rows = torch.sin(0.7 * i + 1.3 * j + 0.45 * i * j) + 1.5 * (j == labels[:, None])
    found = exactly_normalised(rows, gain)
    assert float(found.square().sum(1).mean()) == pytest.approx(7.5, rel=1e-12)
    eps = torch.nn.functional.batch_norm(rows, None, None, gain, training=True, eps=1e-5)
    assert float(eps.square().sum(1).mean()) == pytest.approx(7.499895328590, rel=1e-9)
    cosines = layer_metrics(found, labels, 3, families=("cosine",))
    assert float(cosines["cos_intra_min"]) == pytest.approx(0.140597539610, rel=1e-9)
    assert float(cosines["cos_inter_max"]) == pytest.approx(-0.034647944149, rel=1e-9)


def test_the_value_is_that_of_theory(configured):
    reference, reason = known(configured, *NORMED, "optimizer.weight_decay=0.01")
    assert reason is None and reference.value == bn_optimum(2, 0.01).loss
    reference, _ = known(configured, *RESIDUAL, "optimizer.weight_decay=0.01")
    assert reference.value == gufm_optimum(2, 0.01, 64, "cross_entropy").loss


def test_a_penalty_over_the_depth_is_that_of_a_smaller_decay(configured):
    objective = ["protocol.regularization=objective", "protocol.penalty_weights=depth", "optimizer.weight_decay=0.01"]
    reference, reason = known(configured, *RESIDUAL, *objective)
    assert reason is None and reference.decay == 0.005  # two blocks
    assert reference.value == gufm_optimum(2, 0.005, 64, "cross_entropy").loss


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["backbone.classifier_bias=true"], "bias"),
        (["optimizer.weight_decay=0"], "nothing is decayed"),
        (["optimizer=adamw"], "AdamW"),
        (["backbone.norm_bias=true"], "batch norm without a shift"),
        (["backbone.linear_tail=1"], "batch norm without a shift"),
        (["backbone.loss=mse"], "none is known for"),
    ],
)
def test_where_nothing_is_known_the_reason_is_told(overrides, words, configured):
    reference, reason = known(configured, *NORMED, *overrides)
    assert reference is None and words in reason


@pytest.mark.parametrize("network", [NORMED, RESIDUAL, PATCHES], ids=["batch norm", "residual", "patches"])
def test_a_training_comes_nearer_and_never_below(network, configured, tmp_path):
    config = configured(
        *network, "optimizer=adam", "optimizer.lr=0.02", "optimizer.weight_decay=0.01", "backbone.epochs=20"
    )
    execute(config, prepare(config), tmp_path)
    summary, record = read_summary(tmp_path), read_record(tmp_path)
    gaps = record[record.metric == "relative_gap"].sort_values("step").value.tolist()
    assert gaps[0] > gaps[-1] > 0
    loss = summary["loss"]
    assert loss["relative_gap"] == [gaps[-1]] and loss["optimum_reason"] is None
    [reference] = summary["references"]
    assert reference["value"] == loss["optimum"] and reference["kind"] == "bound"
    assert loss["total"][0] == pytest.approx(loss["optimum"] * (1 + gaps[-1]))
    assert {entry["name"]: entry["value"] for entry in summary["headline"]}["gap_to_optimum"] == gaps[-1]


def test_the_scatter_before_the_last_weight_stands_beside_its_certificate(configured, tmp_path):
    which = ["backbone.hidden=[6,5]", "backbone.linear_tail=2", "measure.families=[core,tail]", "backbone.epochs=2"]
    config = configured(*which, "backbone.loss=mse")
    execute(config, prepare(config), tmp_path)
    summary = read_summary(tmp_path)
    assert [reference["value"] for reference in summary["references"]] == [summary["certificate"]["within_bound"]]
    assert summary["certificate"]["holds"] and summary["certificate"]["within"] > 0
    assert summary["loss"]["optimum"] is None and "fixed length" in summary["loss"]["optimum_reason"]
    record = read_record(tmp_path)
    bounded = record[record.metric == "within_bound"]
    # The rows that enter the last but one weight of the tail: before all others an activation follows, or another.
    assert set(zip(bounded.layer, bounded.tap, strict=True)) == {("network.linear1", "post")}
    assert bounded.value.notna().all()


def test_nothing_bounds_the_scatter_behind_an_activation(configured, tmp_path):
    config = configured("backbone.hidden=[6,5]", "measure.families=[core,tail]", "backbone.epochs=1")
    execute(config, prepare(config), tmp_path)
    metrics = set(read_record(tmp_path).metric)
    assert "balancedness_op" in metrics and "within_bound" not in metrics

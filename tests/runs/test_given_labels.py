"""What is trained goes by the labels it is given; what is measured of layers goes by the true ones."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipeline.data import load_images
from pipeline.runs.door import admit


@pytest.fixture(scope="module")
def run(composed, tmp_path_factory):
    """Every image of the digit 0 is given as a 1: whoever learns that answers 1 to everything."""
    folder = tmp_path_factory.mktemp("given") / "run"
    arguments = ["data.flip.rate=1", "data.flip.from=0", "data.flip.to=1", "backbone.hidden=[8]", "backbone.epochs=3"]
    arguments += ["descent.steps=100", "descent.seeds=1", "head.depth=2", "head.width=8", "head.weight_decay=1e-3"]
    admit(composed(*arguments, "logger=none", "record.figures=false", "descent.records_per_decade=1"), folder).perform()
    return folder


def test_losses_accuracies_and_heads_go_by_the_given_labels(run):
    summary, record = json.loads((run / "summary.json").read_text()), pd.read_csv(run / "record.csv")
    assert summary["data"]["given_otherwise"] == summary["data"]["train"]["0"]
    of_backbone = record[(record.stage == "backbone") & (record.step == 3)].set_index("metric").value
    assert of_backbone["train_accuracy"] == 1.0 and of_backbone["test_accuracy"] == 0.5
    assert summary["accuracy"]["train"] == [1.0] and summary["accuracy"]["test"] == [0.5]


def test_layers_are_measured_by_the_true_labels(run):
    record = pd.read_csv(run / "record.csv")
    own = record[(record.stage == "backbone") & (record.layer == "network.hidden1") & (record.metric == "dnc1")]
    assert own.value.notna().all() and (own.value > 0).all()  # by the given ones there would be one class


def test_tensors_hold_the_labels_that_the_head_was_given(run):
    labels = load_file(run / "tensors.safetensors")["labels"]
    data = load_images("digits", classes=[0, 1], flip={"rate": 1.0, "from": 0, "to": 1})
    assert torch.equal(labels, data.train.given)

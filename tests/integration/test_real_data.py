"""The main job on real MNIST and CIFAR-10 files, a few minutes' worth shrunk to seconds."""

import json

import pytest
from commands import dnc


@pytest.mark.parametrize(
    ("arguments", "blocks"),
    [
        (["data=mnist", "data.classes=[4,9]", "backbone=mlp"], 2),
        (["data=cifar10", "data.classes=[airplane,automobile]", "data.image_size=16", "backbone=resnet20"], 9),
    ],
    ids=["mnist with the MLP", "cifar10 with ResNet-20"],
)
def test_the_main_job_on_real_images(arguments, blocks, data_root, tmp_path):
    small = ["data.samples_per_class=16", "backbone.epochs=1", "descent.steps=200", "descent.seeds=2"]
    small += ["record.figures=false", "logger=none", "descent.records_per_decade=2"]
    dnc(*arguments, f"data.root={data_root}", *small, "hydra.run.dir=run", cwd=tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["problem"]["samples_per_class"] == 16
    assert len(summary["backbone_layers"]) == 2 * blocks
    assert all(row["dnc1"][0] > 0 for row in summary["backbone_layers"])

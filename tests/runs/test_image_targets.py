"""Networks that are fitted to numbers of images: what these are, and a run of one."""

import pytest
import torch
from configurations import PLAIN, configured, perform
from safetensors.torch import load_file

from pipeline.data import ImageData
from pipeline.data.images import Split
from pipeline.dufm import objective
from pipeline.runs import image_targets
from pipeline.runs.image_targets import fitted_to, statistics, teacher
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_record, read_summary

JOINT = PLAIN | {"protocol.name": "end_to_end", "protocol.targets": "statistics", "protocol.regularization": "dufm"}
TINY = JOINT | {
    "data.samples_per_class": 6,
    "backbone.hidden": [8],
    "backbone.epochs": 2,
    "head.depth": 1,
    "head.bias": "last",
    "head.weight_decay": 1e-2,
    "head.feature_decay": 1e-3,
}


def _images(seed: int = 0) -> ImageData:
    draw = torch.Generator().manual_seed(seed)
    splits = [torch.randint(0, 256, (count, 2, 3, 4), dtype=torch.uint8, generator=draw) for count in (12, 5)]
    train, test = (Split(images, torch.arange(len(images)) % 2) for images in splits)
    return ImageData.from_splits("drawn", train, test, ("a", "b"))


def _config(**changed: object):
    return configured(JOINT | {f"protocol.{name}": value for name, value in changed.items()})


def test_statistics_are_brightness_and_differences_of_neighbours():
    images = torch.tensor([[[[0.0, 1.0, 1.0], [2.0, 2.0, 6.0]]], [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]])
    assert statistics(images).tolist() == [[2.0, (1 + 0 + 0 + 4) / 4, (2 + 1 + 5) / 3], [1.0, 0.0, 0.0]]
    assert torch.equal(statistics(images.expand(-1, 3, -1, -1)), statistics(images))


@pytest.mark.parametrize("kind", ["statistics", "teacher"])
def test_numbers_have_mean_0_and_variance_1_over_the_training_images_and_stay_those_of_the_image(kind, monkeypatch):
    images, config = _images(), _config(targets=kind)
    found = fitted_to(config, images)
    goals = found.train.goals
    torch.testing.assert_close(goals.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(goals.square().mean(0), torch.ones(3, dtype=torch.float64))
    raw = {"statistics": statistics, "teacher": teacher}[kind]
    ours, theirs = (raw(images.standardise(split.images), config.seed) for split in (images.train, images.test))
    torch.testing.assert_close(found.test.goals, (theirs - ours.mean(0)) / ours.std(0, correction=0))
    assert torch.equal(found.train.labels, images.train.labels) and found.train[2:4].goals.shape == (2, 3)
    monkeypatch.setattr(image_targets, "PART", 5)
    torch.testing.assert_close(fitted_to(config, images).train.goals, goals)


def test_a_teacher_is_drawn_with_the_seed():
    rows = _images().standardise(_images().train.images)
    assert torch.equal(teacher(rows, 1), teacher(rows, 1)) and not torch.allclose(teacher(rows, 1), teacher(rows, 2))


def test_images_are_as_they_were_where_labels_are_fitted():
    images = _images()
    assert fitted_to(_config(targets="labels"), images) is images


def test_a_network_is_fitted_to_the_numbers_of_its_images(tmp_path):
    perform(tmp_path, TINY)
    summary, tensors = read_summary(tmp_path), load_file(tmp_path / "tensors.safetensors")
    features, weight, targets = tensors["features/1"], tensors["weights/1"], tensors["targets"]
    assert targets.shape[1] == weight.shape[1] == tensors["bias"].shape[1] == 3
    value = objective(
        features,
        [weight],
        tensors["labels"],
        torch.tensor([1e-2], dtype=torch.float64),
        1e-3,
        bias=tensors["bias"],
        targets=targets,
    )
    assert summary["loss"]["total"] == pytest.approx(value.total.tolist(), rel=1e-12)
    assert summary["accuracy"] == {"train": None, "test": None} and summary["problem"]["classes"] is None
    assert summary["references"][0]["name"] == "global optimum"
    record = read_record(tmp_path)
    rows = record[(record.stage == "head") & (record.step == 2)].set_index("metric").value
    for name in ("nrc1", "nrc2", "nrc3", "r_squared"):
        assert rows[name] == pytest.approx(summary["regression"][name][0], rel=1e-9)
    assert rows["test_r_squared"] <= 1 and "train_accuracy" not in set(record.metric)
    # What was trained is what is recorded: the network's own loss, in float32, is the objective's.
    trained = record[(record.stage == "backbone") & (record.metric == "train_loss")].value.tolist()
    assert trained[-1] == pytest.approx(summary["loss"]["total"][0], rel=1e-5) and trained[-1] < trained[0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"protocol.targets": "goals.npy"}, "protocol.targets=goals.npy is not known where there are images"),
        ({"head.loss": "cross_entropy"}, "fits classes; allowed: head.loss=mse"),
        ({"protocol.regularization": "objective"}, "allowed: standard, dufm"),
        ({"head.depth": 0, "head.bias": "none"}, "allowed: head.depth from 1"),
        ({"protocol.name": "fixed_head"}, "allowed: protocol=dufm, or protocol.targets=labels"),
    ],
)
def test_what_does_not_go_with_numbers_is_refused(changed, said):
    with pytest.raises(ConfigError) as caught:
        configured(TINY | changed)
    assert said in str(caught.value)


def test_texts_vectors_and_images_that_are_all_alike_are_refused():
    blank = Split(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8), torch.arange(4) % 2)
    with pytest.raises(ConfigError, match="the same for all 4 training images"):
        fitted_to(_config(), ImageData.from_splits("blank", blank, blank, ("a", "b")))
    vectors = Split(torch.randn(4, 5, 1, 1), torch.arange(4) % 2)
    data = ImageData.from_splits("cloud", vectors, vectors, ("a", "b"))
    with pytest.raises(ConfigError, match="holds vectors; allowed: labels, teacher"):
        fitted_to(_config(), data)
    assert fitted_to(_config(targets="teacher"), data).train.goals.shape == (4, 3)
    tokens = Split(torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="holds text; allowed: labels"):
        fitted_to(_config(targets="teacher"), ImageData.from_splits("text", tokens, tokens, ("a", "b")))


def test_goals_of_another_number_of_rows_are_refused():
    with pytest.raises(ValueError, match="goals must be a matrix of 4 rows"):
        Split(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), goals=torch.zeros(3, 2))

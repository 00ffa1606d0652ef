"""The protocols with images as real processes: end_to_end, fixed_head, frozen_features with given weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recomputation import (
    assert_same_features,
    assert_summary_is_recomputed_from_tensors,
    brute_force,
    collapsed_value,
    layers_of,
    nearest_mean_accuracy,
    record_of,
    summary_of,
    sweep,
)
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file
from scipy.linalg import orthogonal_procrustes

from pipeline.data import load_images
from pipeline.networks import build_backbone
from pipeline.runtime.randomness import generator
from pipeline.theory import DufmProblem, construct_optimum

DEPTH, EPOCHS, SAMPLES, STEPS = 3, 30, 40, 2000
DIGITS = [f"data.samples_per_class={SAMPLES}", "backbone.hidden=[32,16]", "backbone.batch_size=24"]
SMALL = [
    f"descent.steps={STEPS}",
    "descent.lr=0.2",
    "descent.seeds=2",
    f"head.depth={DEPTH}",
    "head.width=16",
    "head.weight_decay=2e-3",
]
BASE = [*DIGITS, *SMALL, "logger=none", "descent.records_per_decade=3"]
LENIENT = ["stop_when_collapsed=true", "verdict.dnc1=1e3", "verdict.dnc2=1e9", "verdict.dnc3=2"]
OWN = [*SMALL, *LENIENT, "logger=none", "data=image_folder", "backbone=custom", "backbone.epochs=20"]
OWN += ["descent.records_per_decade=2", "backbone._target_=my_networks.Convolutions"]
MIXED = ["data.root=my images/mixed", "data.image_size=12"]

E2E = ["protocol=end_to_end", f"backbone.epochs={EPOCHS}"]
FIXED = ["protocol=fixed_head", f"backbone.epochs={EPOCHS}"]
JOINT = {
    "e2e_standard": [*BASE, *E2E, "optimizer.weight_decay=1e-3", "backbone.checkpoint=weights.safetensors"],
    "e2e_dufm": [*BASE, *E2E, "protocol.regularization=dufm"],
    "fixed_descent": [*BASE, *FIXED],
    "fixed_constructed": [*BASE, *FIXED, "protocol.solution=constructed"],
}
JOBS = JOINT | {
    "untrained_descent": [*JOINT["fixed_descent"], "backbone.epochs=0"],
    "frozen": [*BASE, "backbone.epochs=3", "descent.steps=100"],
    "control": [*BASE, "backbone.epochs=0", "descent.steps=100"],
    "from_run": [*BASE, "backbone.from_run=frozen", "head.depth=4", "descent.steps=100"],
    "from_ckpt": [*BASE, "backbone.checkpoint=frozen/checkpoints/backbone.ckpt", "descent.steps=100"],
    "from_pt": [*BASE, "backbone.checkpoint=weights.pt", "protocol=fixed_head", "backbone.epochs=0"],
    "own_frozen": [*OWN, *MIXED],
    "own_e2e": [*OWN, "data.root=my images/grey", "protocol=end_to_end", "backbone.kwargs={channels: 1}"],
    "own_fixed": [*OWN, *MIXED, "protocol=fixed_head"],
    "dead": [
        *(argument for argument in BASE if "hidden" not in argument),
        "backbone=custom",
        "backbone._target_=my_networks.Dead",
        "backbone.epochs=1",
        "protocol=fixed_head",
    ],
}
DRAWN = ("e2e_standard", "fixed_descent", "own_frozen")
"""One job of each protocol; a picture takes longer than a run."""
CLASSES = {"a cat": 24, "dog": 12, "emu": 18}

NETWORKS = """
from torch import nn

class Dead(nn.Linear):
    def __init__(self):
        super().__init__(64, 4)

    def forward(self, x):
        return 0 * super().forward(x.flatten(1))

class Convolutions(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Dropout(0.1), nn.GELU())
        self.tied = nn.Conv2d(6, 6, 3, padding=1)
        self.tied.weight = self.body[0].weight

    def get_extra_state(self):
        return {"note": "not a tensor"}

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return self.tied(self.body(self.stem(x)))  # maps, to be averaged
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All jobs in one process; the folder they are in, and what they printed."""
    folder = tmp_path_factory.mktemp("a sweep")
    (folder / "my_networks.py").write_text(NETWORKS)
    write_images(folder / "my images" / "mixed", ("RGB", "L", "LA", "RGBA", "P"), ((12, 12), (20, 14), (15, 40)))
    write_images(folder / "my images" / "grey" / "train", ("L", "LA"), ((12, 10),))
    write_images(folder / "my images" / "grey" / "test", ("L",), ((12, 10),))
    network = given_network()
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.items()}}, folder / "weights.pt")
    save_torch_file(network, folder / "weights.safetensors")
    done = sweep({name: [*job, f"record.figures={name in DRAWN}"] for name, job in JOBS.items()}, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def write_images(root: Path, modes: tuple[str, ...], sizes: tuple[tuple[int, int], ...]) -> None:
    """Stripes, wider from class to class, of changing modes and sizes."""
    noise = np.random.default_rng(0)
    for label, (name, count) in enumerate(CLASSES.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            width, height = sizes[index % len(sizes)]
            stripes = 100 + 80 * np.sin(np.arange(width) / (1 + label)) + noise.uniform(-30, 30, (height, width))
            grey = Image.fromarray(stripes.astype(np.uint8))
            mode = modes[index % len(modes)]
            image = grey.convert(mode.removesuffix("A"))
            if mode.endswith("A"):
                image.putalpha(200)
            image.save(root / name / f"{index}.png")


def given_network() -> dict[str, torch.Tensor]:
    return build_backbone("mlp", (1, 8, 8), hidden=[32, 16], seed=77).network.state_dict()


def digits():
    return load_images("digits", classes=[0, 1], samples_per_class=SAMPLES)


def network_layers(run: Path, split: str) -> tuple[dict, np.ndarray]:
    """All layers of backbone and head on a split, with numpy: (stage, layer, tap) -> (N, d); and the labels."""
    images, depth = digits(), summary_of(run)["problem"]["depth"]
    # In float32 as the network computes, so that ReLUs cut at the same places.
    weights = load_file(run / "checkpoints" / "backbone.safetensors")
    chosen = getattr(images, split)
    pixels = images.train.images.numpy() / 255
    hidden = ((chosen.images.numpy() / 255 - pixels.mean()) / pixels.std()).reshape(len(chosen), -1).astype(np.float32)
    layers = {}
    for block in ("network.hidden1", "network.hidden2"):
        hidden = hidden @ weights[f"{block}.0.weight"].T + weights[f"{block}.0.bias"]
        layers["backbone", block, "pre"] = hidden.astype(float)
        hidden = np.maximum(hidden, 0)
        layers["backbone", block, "post"] = hidden.astype(float)
    head = layers_of(load_file(run / "tensors.safetensors"), hidden.astype(float), depth)
    return layers | {("head", *place): values for place, values in head.items()}, chosen.labels.numpy()


@pytest.mark.parametrize("name", JOBS)
def test_every_job_completes_and_leaves_every_file(name, runs):
    run = runs[0] / name
    assert summary_of(run)["status"] == "completed"
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {"record.csv", "tensors.safetensors", "checkpoints/backbone.safetensors"} <= names
    assert ("figures/collapse.png" in names) == (name in DRAWN)
    assert not [name for name in names if "tmp" in name or name.startswith("stages")]


@pytest.mark.parametrize("name", [name for name in JOBS if name != "dead"])
def test_every_number_of_the_summary_can_be_recomputed(name, runs):
    assert_summary_is_recomputed_from_tensors(runs[0] / name)


@pytest.mark.parametrize("name", [*JOINT, "frozen"])
def test_both_splits_are_measured_in_every_layer_of_backbone_and_head(name, runs):
    run = runs[0] / name
    summary = summary_of(run)
    train, train_labels = network_layers(run, "train")
    test, test_labels = network_layers(run, "test")
    rows = {("backbone", row["layer"], row["tap"]): row for row in summary["backbone_layers"]}
    rows |= {("head", row["layer"], row["tap"]): row for row in summary["layers"]}
    assert set(rows) == set(train) == set(test)
    for place, row in rows.items():
        for prefix, features, labels in (("", train[place], train_labels), ("test_", test[place], test_labels)):
            dnc1, dnc2 = brute_force(features, labels)
            accuracy = nearest_mean_accuracy(features, labels, train[place], train_labels)
            assert row[f"{prefix}dnc1"][0] == pytest.approx(dnc1, rel=1e-3)
            assert row[f"{prefix}dnc2"][0] == pytest.approx(dnc2, rel=1e-3)
            assert row[f"{prefix}ncm_accuracy"][0] == pytest.approx(accuracy, abs=1.01 / len(labels))


@pytest.mark.parametrize("name", [*JOINT, "frozen"])
def test_the_features_are_those_of_the_stored_backbone(name, runs):
    run, images = runs[0] / name, digits()
    backbone = build_backbone("mlp", images.image_shape, hidden=[32, 16])
    kept = load_torch_file(run / "checkpoints" / "backbone.safetensors")
    head = {key: kept.pop(key) for key in list(kept) if key.startswith("head/")}
    backbone.load_state_dict(kept)
    with torch.no_grad():
        expected = backbone.eval()(images.standardise(images.train.images)).double()
    tensors = load_torch_file(run / "tensors.safetensors")
    assert_same_features(tensors["features/1"], expected)
    assert len(head) == (DEPTH if name in JOINT else 0)
    for key, weight in head.items():
        assert torch.equal(tensors[key.replace("head", "weights")][0], weight.double())


@pytest.mark.parametrize("name", JOINT)
def test_head_and_backbone_are_recorded_side_by_side_epoch_by_epoch(name, runs):
    run = runs[0] / name
    summary, record = summary_of(run), record_of(run)
    units = {"backbone": "epoch", "head": "epoch"}
    assert summary["step_units"] == (units | {"dufm": "gradient step"} if name == "fixed_descent" else units)
    assert set(record.stage) == set(summary["step_units"]) and set(record[record.stage != "dufm"].seed) == {0}
    steps = {stage: sorted(set(record[record.stage == stage].step)) for stage in units}
    assert steps["head"] == steps["backbone"] and steps["head"][0] == 0 and steps["head"][-1] == EPOCHS
    assert summary["stopped_early"] == {} and summary["problem"]["inputs"] == "network"
    assert not record.duplicated(["stage", "step", "seed", "layer", "tap", "metric"]).any()
    last = record[(record.stage == "head") & (record.step == EPOCHS)].set_index(["layer", "tap", "metric"]).value
    for row in summary["layers"]:
        for metric in ("dnc1", "test_dnc1", "ncm_accuracy", "test_ncm_accuracy"):
            assert row[metric] == [last[str(row["layer"]), row["tap"], metric]]


@pytest.mark.parametrize("name", ["e2e_dufm", "fixed_descent", "fixed_constructed"])
def test_the_training_loss_is_the_dufms_objective_of_all_samples(name, runs):
    record = record_of(runs[0] / name)
    whole = record[record.layer == ""]
    trained = whole[(whole.stage == "backbone") & (whole.metric == "train_loss")].set_index("step").value
    objective = whole[(whole.stage == "head") & (whole.metric == "loss")].set_index("step").value
    # The loss in float32: of numbers of size 1, whatever is left of their differences.
    np.testing.assert_allclose(trained, objective, rtol=1e-5, atol=1e-6)
    assert list(trained.index) == list(objective.index) and trained[EPOCHS] < 0.5 * trained[0]
    problem = summary_of(runs[0] / name)["problem"]
    assert problem["weight_decay"] == [2e-3] * DEPTH and problem["feature_decay"] == 5e-6


def test_standard_regularisation_costs_the_optimizers_decay_of_every_weight(runs):
    summary, record = summary_of(runs[0] / "e2e_standard"), record_of(runs[0] / "e2e_standard")
    assert summary["problem"]["weight_decay"] == [1e-3] * DEPTH and summary["problem"]["feature_decay"] is None
    assert summary["loss"]["optimum"] is None and "no penalty" in summary["loss"]["optimum_reason"]
    whole = record[(record.layer == "") & (record.step == EPOCHS)].set_index(["stage", "metric"]).value
    # What SGD decays by itself is not in the loss of the batches.
    assert whole["backbone", "train_loss"] == pytest.approx(whole["head", "fit"], rel=1e-5, abs=1e-6)
    assert summary["accuracy"]["train"][0] >= 0.99


@pytest.mark.parametrize("name", ["e2e_dufm", "fixed_descent", "fixed_constructed"])
def test_the_gap_is_taken_to_the_closed_form(name, runs):
    summary = summary_of(runs[0] / name)
    optimum = collapsed_value(2, SAMPLES, [2e-3] * DEPTH, 5e-6)
    assert summary["loss"]["optimum"] == pytest.approx(optimum, rel=1e-12)
    gap = summary["loss"]["total"][0] / optimum - 1
    assert summary["loss"]["relative_gap"][0] == pytest.approx(gap, rel=1e-9) and gap > 0


@pytest.mark.parametrize("solution", ["descent", "constructed"])
def test_a_network_under_a_fixed_head_fits_and_reports_its_gap(solution, runs):
    run = runs[0] / f"fixed_{solution}"
    summary, optimum = summary_of(run), collapsed_value(2, SAMPLES, [2e-3] * DEPTH, 5e-6)
    found = summary["fixed_head"]
    assert summary["accuracy"]["train"][0] >= 0.99 and summary["accuracy"]["test"][0] >= 0.95
    assert found["solution"] == solution and found["dufm_sits_at"] == "global optimum"
    assert found["dufm_optimum"] == pytest.approx(optimum, rel=1e-12)
    assert found["loss"] == summary["loss"]["total"][0]
    assert found["relative_gap"] == pytest.approx(found["loss"] / optimum - 1, rel=1e-9)
    if solution == "constructed":
        assert found["dufm_loss"] == pytest.approx(optimum, rel=1e-9)
    else:
        record = record_of(run)
        dufm = record[(record.stage == "dufm") & (record.metric == "loss") & (record.step == STEPS)]
        assert found["dufm_loss"] == dufm.value.min() >= optimum
        assert found["dufm_seed"] == dufm.set_index("seed").value.idxmin()
        assert found["dufm_relative_gap"] == pytest.approx(found["dufm_loss"] / optimum - 1, rel=1e-9)


def test_training_leaves_a_fixed_head_as_it_was(runs):
    trained, untrained = (
        load_file(runs[0] / f"{name}_descent" / "tensors.safetensors") for name in ("fixed", "untrained")
    )
    for layer in range(1, DEPTH + 1):
        assert np.array_equal(trained[f"weights/{layer}"], untrained[f"weights/{layer}"])
    assert not np.allclose(trained["features/1"], untrained["features/1"])


def test_the_alignment_is_that_of_the_procrustes_problem(runs):
    run = runs[0] / "fixed_constructed"
    tensors, found = load_file(run / "tensors.safetensors"), summary_of(run)["fixed_head"]
    problem = DufmProblem(2, 1, DEPTH, (2e-3,) * DEPTH, 5e-6 * SAMPLES)
    point = construct_optimum(problem, [16] * DEPTH, generator(0, "constructed optimum"), nonnegative_features=True)
    # The run's head is this optimum with some axes of the feature space flipped.
    signs = np.sign((tensors["weights/1"][0] * point.weights[0].numpy()).sum(axis=0))
    np.testing.assert_allclose(tensors["weights/1"][0], point.weights[0].numpy() * signs, rtol=1e-5, atol=1e-9)
    for layer in range(1, DEPTH):  # training has left them alone
        np.testing.assert_allclose(tensors[f"weights/{layer + 1}"][0], point.weights[layer], rtol=1e-5, atol=1e-9)
    features, target = tensors["features/1"], (point.features.numpy() * signs)[tensors["labels"]]
    rotation, nuclear = orthogonal_procrustes(target, features)
    norms = np.linalg.norm(features) * np.linalg.norm(target)
    assert found["alignment"] == pytest.approx(np.sum(features * target) / norms)
    assert found["alignment_rotated"] == pytest.approx(nuclear / norms)
    for key, reached in (("feature_distance", target), ("feature_distance_rotated", target @ rotation)):
        assert found[key] == pytest.approx(np.linalg.norm(features - reached) / np.linalg.norm(target))
    record = record_of(run)
    last = record[(record.stage == "head") & (record.step == EPOCHS)].set_index("metric").value
    assert last["alignment_rotated"] == found["alignment_rotated"]
    before = record[(record.step == 0) & (record.metric == "alignment_rotated")].value.item()
    assert found["alignment_rotated"] > before


def test_the_same_seed_gives_the_same_record_in_another_process(runs, tmp_path):
    again = ["fixed_descent", "e2e_dufm"]
    assert sweep({name: JOBS[name] for name in again}, "record.figures=false", cwd=tmp_path).returncode == 0
    for name in again:
        assert (tmp_path / name / "record.csv").read_bytes() == (runs[0] / name / "record.csv").read_bytes()


@pytest.mark.parametrize(("name", "depth"), [("from_run", 4), ("from_ckpt", DEPTH)])
def test_a_trained_backbone_is_taken_over_without_training_it(name, depth, runs):
    first, run = runs[0] / "frozen", runs[0] / name
    summary, record = summary_of(run), record_of(run)
    features = [load_file(folder / "tensors.safetensors")["features/1"] for folder in (first, run)]
    assert np.array_equal(*features)
    assert summary["problem"]["depth"] == depth and summary["stopped_early"] == {}
    assert set(record[record.stage == "backbone"].step) == {0}
    assert summary["backbone_weights"]["path"].startswith("frozen") and len(summary["backbone_weights"]["sha256"]) == 64
    assert not (run / "checkpoints" / "backbone.ckpt").exists()


def test_weights_of_ones_own_are_loaded_from_a_file(runs):
    kept = load_torch_file(runs[0] / "from_pt" / "checkpoints" / "backbone.safetensors")
    for key, value in given_network().items():
        assert torch.equal(kept[f"network.{key}"], value)


def test_end_to_end_trains_on_from_given_weights(runs):
    starts = []
    for name in ("e2e_standard", "from_pt"):
        record = record_of(runs[0] / name)
        blocks = record[(record.stage == "backbone") & (record.step == 0) & (record.layer != "")]
        starts.append(blocks[~blocks.metric.str.contains("nc4")].reset_index(drop=True))
    assert starts[0].equals(starts[1]) and len(starts[0])
    trained = load_torch_file(runs[0] / "e2e_standard" / "checkpoints" / "backbone.safetensors")
    assert not any(torch.equal(trained[f"network.{key}"], value) for key, value in given_network().items())


def test_an_untrained_backbone_is_the_control(runs):
    run = runs[0] / "control"
    kept = load_torch_file(run / "checkpoints" / "backbone.safetensors")
    fresh = build_backbone("mlp", (1, 8, 8), hidden=[32, 16], seed=0).state_dict()
    assert all(torch.equal(kept[name], value) for name, value in fresh.items())
    assert set(record_of(run).query("stage == 'backbone'").step) == {0}


@pytest.mark.parametrize("name", ["own_frozen", "own_e2e", "own_fixed"])
def test_a_run_stops_when_collapsed_and_says_where(name, runs):
    summary, record = summary_of(runs[0] / name), record_of(runs[0] / name)
    assert summary["stopped_early"] == {"backbone": 1, "head": 1}
    for stage in ("backbone", "head"):
        assert record[record.stage == stage].step.max() == 1
        assert f"Stopped when collapsed: {stage} after {summary['step_units'][stage]} 1." in runs[1]
    if name == "own_fixed":  # the DUFM itself is solved to the end
        assert record[record.stage == "dufm"].step.max() == STEPS


@pytest.mark.parametrize("name", ["own_frozen", "own_fixed", "own_e2e"])
def test_folders_of_images_and_a_network_of_ones_own_are_enough(name, runs):
    summary = summary_of(runs[0] / name)
    assert summary["problem"]["classes"] == list(CLASSES) and summary["problem"]["num_classes"] == 3
    assert summary["data"]["image_shape"] == ([1, 10, 12] if name == "own_e2e" else [3, 12, 12])
    assert summary["problem"]["widths"] == [6, 16, 16, 3]


def test_classes_of_different_size_are_reported(runs):
    whole, flat = (summary_of(runs[0] / name)["data"] for name in ("own_e2e", "own_frozen"))
    assert whole["train"] == whole["test"] == CLASSES and whole["imbalance"] == 2
    assert flat["train"] == {"a cat": 19, "dog": 10, "emu": 14} and flat["test"] == {"a cat": 5, "dog": 2, "emu": 4}
    assert "The classes differ in size (ratio 1.9): a cat 19, dog 10, emu 14." in " ".join(runs[1].split())
    found = summary_of(runs[0] / "own_fixed")["fixed_head"]
    optimum = collapsed_value(3, 43 / 3, [2e-3] * DEPTH, 5e-6)  # the mean size stands for all
    assert found["dufm_optimum"] == pytest.approx(optimum, rel=1e-9)
    # Of classes of unequal sizes theory knows the collapsed state, and no theorem says that it is the optimum.
    summary = summary_of(runs[0] / "own_fixed")
    assert summary["loss"]["optimum_kind"] == "collapsed solution" and summary["references"][0]["kind"] == "stationary"
    assert summary["verdict"]["theorem_reason"] == "the classes differ in size"
    assert 0 < summary["loss"]["optimum"] < min(summary["loss"]["total"])


def test_features_that_are_zero_have_an_undefined_alignment(runs):
    found = summary_of(runs[0] / "dead")["fixed_head"]
    assert found["alignment"] is found["alignment_rotated"] is None and found["feature_distance"] == 1
    assert "cosine undefined (the features are zero)" in " ".join(runs[1].split())

"""What a run works on is checked before anything of it is written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from pipeline.cli.app import EXIT_BAD_CONFIG
from pipeline.networks import build_backbone

HIDDEN = (16, 8)
MLP = "backbone.hidden=[16,8]"


@pytest.fixture
def refused(run_here, tmp_path):
    """Run the command, which is to refuse: returns the sentence, after checking all that such a refusal promises."""

    def run(*arguments: str) -> str:
        code, err, left = run_here(*arguments)
        assert code == EXIT_BAD_CONFIG
        assert err.startswith("error: ") and err.endswith(".\n") and err.count("\n") == 1 and "Traceback" not in err
        assert left == []
        return err

    return run


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    """Where files lie that the command is pointed at; not the folder it runs in."""
    return tmp_path_factory.mktemp("some files")


def state(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Weights of an MLP of widths HIDDEN for digits, by name; None leaves one out."""
    weights = build_backbone("mlp", (1, 8, 8), hidden=HIDDEN).network.state_dict() | changes
    return {name: value for name, value in weights.items() if value is not None}


def make_run(folder: Path, status: str = "completed", protocol: str = "frozen_features", **backbone) -> Path:
    """The folder of a run, without its weights."""
    (folder / ".hydra").mkdir(parents=True)
    settings = {"name": "mlp", "hidden": list(HIDDEN), **backbone}
    (folder / ".hydra" / "config.yaml").write_text(
        yaml.safe_dump({"backbone": settings, "protocol": {"name": protocol}})
    )
    (folder / "summary.json").write_text(json.dumps({"status": status, "protocol": protocol}))
    return folder


def add_weights(run: Path, weights: dict[str, torch.Tensor]) -> Path:
    (run / "checkpoints").mkdir()
    save_file({f"network.{name}": value for name, value in weights.items()}, run / "checkpoints/backbone.safetensors")
    return run


def images(root: Path, sizes: dict[str, list[tuple[int, int]]]) -> Path:
    noise = np.random.default_rng(0)
    for name, shapes in sizes.items():
        (root / name).mkdir(parents=True)
        for index, (width, height) in enumerate(shapes):
            pixels = noise.integers(0, 256, (height, width), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_a_checkpoint_that_does_not_fit_names_the_first_mismatching_tensors(refused, folder):
    changed = {"hidden1.0.weight": torch.zeros(3, 64), "hidden2.0.bias": None, "hidden9.0.bias": torch.zeros(1)}
    torch.save(state(**changed), folder / "other.pt")
    sentence = refused(f"backbone.checkpoint={folder / 'other.pt'}", MLP)
    assert "hidden1.0.weight is (3, 64) in the file and (16, 64) in the network" in sentence
    assert "hidden9.0.bias is not in the network" in sentence and "hidden2.0.bias is missing in the file" in sentence
    assert f"backbone.checkpoint={folder / 'other.pt'}" in sentence and "allowed: " in sentence


def test_a_checkpoint_of_another_network_is_cut_short(refused, folder):
    save_file(build_backbone("resnet20", (1, 8, 8)).network.state_dict(), folder / "weights.safetensors")
    sentence = refused(f"backbone.checkpoint={folder / 'weights.safetensors'}", MLP)
    assert "does not fit backbone=mlp" in sentence and "more)" in sentence and len(sentence) < 600


class Code:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"no weights"), "may be damaged"),
        (lambda path: torch.save({"weights": Code()}, path), "holds more than tensors"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no tensors"),
        (lambda path: torch.save(state(**{"hidden1.0.bias": torch.full((16,), torch.nan)}), path), "NaN or infinity"),
    ],
    ids=["empty", "text", "code", "no tensors", "NaN"],
)
def test_a_checkpoint_that_is_no_good_is_refused(content, reason, refused, folder):
    content(folder / "weights.pt")
    sentence = refused(f"backbone.checkpoint={folder / 'weights.pt'}", MLP)
    assert reason in sentence and str(folder / "weights.pt") in sentence and "unpickled\n" not in sentence


def test_a_run_without_a_trained_backbone_says_what_is_missing(refused, folder):
    sentence = refused(f"backbone.from_run={make_run(folder / 'run', 'running')}", MLP)
    assert "no checkpoints/backbone.safetensors" in sentence and "status is running" in sentence


def test_a_run_of_the_dufm_has_no_backbone(refused, folder):
    sentence = refused(f"backbone.from_run={make_run(folder / 'run', protocol='dufm')}", MLP)
    assert "protocol=dufm, which has no backbone" in sentence


def test_a_folder_that_is_no_run_is_refused(refused, folder):
    assert "is not a run's folder" in refused(f"backbone.from_run={folder}", MLP)
    (folder / "multirun.yaml").touch()
    assert "jobs of a sweep" in refused(f"backbone.from_run={folder}", MLP)


@pytest.mark.parametrize(
    ("theirs", "named"),
    [({"name": "resnet20"}, "backbone=resnet20"), ({"hidden": [16, 9]}, "backbone.hidden=[16, 9]")],
    ids=["architecture", "widths"],
)
def test_a_run_of_another_network_is_refused(theirs, named, refused, folder):
    run = add_weights(make_run(folder / "run", **theirs), state())
    sentence = refused(f"backbone.from_run={run}", MLP)
    assert f"was trained with {named}" in sentence and f"allowed: the same network, {named}." in sentence


def test_a_run_on_other_images_names_the_first_mismatching_tensor(refused, folder):
    run = add_weights(make_run(folder / "run"), state(**{"hidden1.0.weight": torch.zeros(16, 784)}))
    assert "hidden1.0.weight is (16, 784) in the file" in refused(f"backbone.from_run={run}", MLP)


def test_from_run_and_checkpoint_exclude_each_other(refused, folder):
    run = add_weights(make_run(folder / "run"), state())
    file = run / "checkpoints" / "backbone.safetensors"
    sentence = refused(f"backbone.from_run={run}", f"backbone.checkpoint={file}", MLP)
    assert f"backbone.from_run={run}" in sentence and f"backbone.checkpoint={file}" in sentence


def test_images_of_different_sizes_need_a_size(refused, folder):
    images(folder, {"a": [(8, 8), (8, 8)], "b": [(8, 8), (9, 8)]})
    sentence = refused("data=image_folder", f"data.root={folder}")
    assert "data.image_size=null" in sentence and "8x8" in sentence and "9x8" in sentence
    assert str(folder / "b" / "1.png") in sentence


def test_unreadable_images_are_listed_by_name(refused, folder):
    images(folder, {"a": [(8, 8)] * 4, "b": [(8, 8)] * 4})
    (folder / "a" / "1.png").write_bytes(b"not an image")
    truncated = folder / "b" / "2.png"
    truncated.write_bytes(truncated.read_bytes()[:60])
    (folder / "b" / "3.png").write_bytes(b"")
    sentence = refused("data=image_folder", f"data.root={folder}")
    assert "3 image file(s)" in sentence
    for name in ("a/1.png", "b/2.png", "b/3.png"):
        assert str(folder / name) in sentence
    assert "image file the file" not in sentence and str(folder / "a" / "0.png") not in sentence


def test_many_unreadable_images_are_counted(refused, folder):
    images(folder, {"a": [(8, 8)] * 2, "b": [(8, 8)] * 2})
    for index in range(50):
        (folder / "a" / f"bad{index}.jpg").write_bytes(b"no")
    sentence = refused("data=image_folder", f"data.root={folder}")
    assert "50 image file(s)" in sentence and "and 40 more" in sentence


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["data.classes=[cat,dgo]"], ("'dgo'", "did you mean 'dog'", "0..2")),
        (["data.classes=[0,3]"], ("3", "0..2")),
        (["data.samples_per_class=5"], ("data.samples_per_class=5", "'dog'", "1..2")),
    ],
    ids=["no such name", "no such index", "too few images"],
)
def test_classes_that_are_not_there_are_refused(arguments, named, refused, folder):
    images(folder, {"cat": [(8, 8)] * 9, "dog": [(8, 8)] * 3, "emu": [(8, 8)] * 9})
    sentence = refused("data=image_folder", f"data.root={folder}", *arguments)
    assert all(part in sentence for part in named)


def test_a_class_of_one_image_cannot_be_split(refused, folder):
    images(folder, {"cat": [(8, 8)] * 9, "dog": [(8, 8)]})
    assert "'dog'" in refused("data=image_folder", f"data.root={folder}")


def test_class_folders_have_to_be_the_same_in_both_splits(refused, folder):
    images(folder / "train", {"cat": [(8, 8)] * 2, "dog": [(8, 8)] * 2})
    images(folder / "test", {"cat": [(8, 8)] * 2, "dgo": [(8, 8)] * 2})
    sentence = refused("data=image_folder", f"data.root={folder}")
    assert "dgo, dog" in sentence


def test_a_network_of_ones_own_that_cannot_take_the_images_is_refused(refused):
    arguments = ["backbone=custom", "backbone._target_=torch.nn.Linear"]
    sentence = refused(*arguments, "backbone.kwargs={in_features: 7, out_features: 3}")
    assert "backbone._target_=torch.nn.Linear cannot take images of shape (1, 8, 8)" in sentence


def test_flattened_maps_whose_class_means_do_not_fit_are_refused_with_their_size(refused, monkeypatch):
    monkeypatch.setattr("pipeline.runtime.memory.machine_memory", lambda device: 2 * 2**20)
    # (6 x 16 x 8 x 8 + 6 x 32 x 4 x 4 + 6 x 64 x 2 x 2) numbers, 10 classes, 2 splits, 16 bytes: 3.28 MiB.
    assert refused("backbone=resnet20", "backbone.pooling=flatten", "data.classes=null", "head.depth=1") == (
        "error: class means of 18 maps of up to 1,024 numbers (backbone.pooling=flatten) need at least 3 MiB of "
        "memory, and there are 2 MiB; allowed: average, smaller images or fewer classes.\n"
    )


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        (
            "backbone.layers=[layr*]",
            "backbone.layers: layer pattern 'layr*' matches no module of this ResNet20, did you",
        ),
        (
            "backbone.layers=layer*",
            "backbone.layers=layer* is no list of patterns; allowed: [layer*,fc:pre,**.attn], or",
        ),
        ("backbone.layers=[]", "backbone.layers=[] is no list of patterns; allowed: "),
        (
            'backbone.read={"layer*": max}',
            "backbone.read={layer*: max} is no way to read a layer; allowed: mean, cls, la",
        ),
        (
            "backbone.read=cls",
            "backbone.read=cls is no mapping; allowed: {pattern: mean, cls, last, flatten, positions",
        ),
        (
            "backbone.read={conv1: mean}",
            "backbone.read={conv1: ...} means no layer that is measured; allowed: patterns",
        ),
        (
            "backbone.read={layer1.0: cls}",
            "backbone=resnet20: layer layer1.0 gives (1, 16, 8, 8), which has no single ax",
        ),
        (
            "backbone.read={layer1.0: nlc}",
            "backbone=resnet20: layer layer1.0 gives (1, 16, 8, 8), but is read as 3 axes",
        ),
    ],
)
def test_layers_and_readings_that_mean_nothing_are_refused(refused, argument, sentence):
    assert sentence in refused("backbone=resnet20", argument)


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.mixed, self.last = nn.Linear(64, 25), nn.Identity(), nn.Linear(25, 4)

    def forward(self, x):
        x = self.last(self.mixed(self.flat(x.flatten(1)).unflatten(1, (5, 5))).flatten(1))
        return (x, x) if self.training else x
"""


def test_what_cannot_be_read_or_trained_is_refused_and_the_option_shown(refused, folder, monkeypatch):
    (folder / "own_of_inputs.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    own = ["backbone=custom", "backbone._target_=own_of_inputs.Net"]
    sentence = refused(*own, "backbone.layers=[mixed]")
    assert "layer mixed gives (1, 5, 5), and nothing tells which axis of (N, 5, 5) holds the channels; " in sentence
    assert "allowed: backbone.read={mixed: nhwc}" in sentence
    sentence = refused(*own, "backbone.layers=[mixed]", "backbone.read={mixed: nlc}")
    assert "own_of_inputs.Net returns a tuple for 2 images while it trains; allowed: vectors (2, d)" in sentence

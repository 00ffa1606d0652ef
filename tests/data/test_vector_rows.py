"""What all sets of vectors share: standardising, refusals, runs."""

import json
from dataclasses import asdict

import pytest
import torch
import yaml

from pipeline.data import load_images, validate_request
from pipeline.data.registry import data_sets
from pipeline.data.vector_rows import BLOCK, normal_rows, scaling
from pipeline.runs.door import admit
from pipeline.runtime.randomness import generator

ROWS = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]]).view(3, 2, 1, 1)
DRAWN = [name for name, found in data_sets().items() if found.kind == "vectors" and not found.needs_root]


def test_centring_takes_off_the_mean_of_each_coordinate():
    assert scaling(ROWS, "center")(ROWS).flatten().tolist() == [-2, 0, 0, 0, 2, 0]
    assert scaling(ROWS, "none")(ROWS) is ROWS


def test_features_have_mean_0_and_std_1_each_and_a_constant_one_is_zero():
    out = scaling(ROWS, "features")(ROWS).flatten(1).double()
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(2).double())
    torch.testing.assert_close(out.std(dim=0, correction=0), torch.tensor([1.0, 0.0]).double())


def test_global_scaling_divides_all_entries_by_one_std():
    out = scaling(ROWS, "global")(ROWS).double()
    torch.testing.assert_close(out, (ROWS.double() - 4) / ROWS.double().std(correction=0), rtol=1e-6, atol=1e-7)


def test_what_is_standardised_goes_by_the_training_rows_that_are_left():
    asked = {"classes": ["1", "0"], "samples_per_class": 5, "num_classes": 3, "dim": 4, "test": 7}
    raw = load_images("mixture", **asked)
    data = load_images("mixture", **asked, standardize="features")
    shift, scale = raw.train.images.double().mean(0), raw.train.images.double().std(0, correction=0)
    for split, plain in ((data.train, raw.train), (data.test, raw.test)):
        torch.testing.assert_close(split.images, ((plain.images.double() - shift) / scale).float())


def test_the_first_rows_do_not_depend_on_how_many_follow():
    few, many = (normal_rows(count, 3, generator(0, "rows")) for count in (5, 2 * BLOCK + 1))
    assert torch.equal(few, many[:5]) and len(many) == 2 * BLOCK + 1
    torch.testing.assert_close(many.var(dim=0), torch.ones(3).double(), atol=0.25, rtol=0)


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_rows_are_a_function_of_the_seed(name):
    first, again, other = (load_images(name, seed=seed) for seed in (3, 3, 4))
    for split in ("train", "test"):
        assert torch.equal(getattr(first, split).images, getattr(again, split).images)
        assert torch.equal(getattr(first, split).labels, getattr(again, split).labels)
        assert not torch.equal(getattr(first, split).images, getattr(other, split).images)
    assert not torch.equal(first.train.images[:5], first.test.images[:5])
    assert first.kind == "vectors"


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8}, r"data\.image_size=8 does not go with data=\w+, which holds vectors and no images"),
        ({"standardize": "pixels"}, r"data\.standardize=pixels is not known; allowed: none, center"),
        ({"num_classes": 1}, r"data\.num_classes=1 is out of range; allowed: an integer >= 2"),
        ({"dim": 0}, r"data\.dim=0 is out of range"),
        ({"dim": 2**50}, r"rows of data\.dim=\d+ and their labels need at least"),
    ],
)
def test_unfit_settings_of_vectors_are_refused_in_a_sentence(name, options, message):
    for call in (validate_request, load_images):
        with pytest.raises(ValueError, match=message) as error:
            call(name, **options)
        assert "\n" not in str(error.value)


SMALL = ["data=mixture", "data.samples_per_class=6", "data.test=5", "logger=none", "record.figures=false", "-q"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backbone=resnet20"], "backbone=resnet20 does not go with data=mixture, which holds vectors; allowed: "),
        (["backbone=resnet18"], "backbone=resnet18 does not go with data=mixture, which holds vectors"),
        (["data.augment=crop"], "data.augment=crop does not go with data=mixture, which holds vectors and no images"),
    ],
)
def test_a_run_refuses_what_needs_maps_and_leaves_nothing(run_here, arguments, message):
    code, err, left = run_here(*SMALL, *arguments)
    assert code == 2 and left == [] and message in err and err.count("\n") == 1


def test_vectors_run_and_their_features_serve_other_runs(composed, tmp_path):
    shrunk = [*SMALL[:-1], "backbone.hidden=[8]", "backbone.epochs=1", "descent.steps=4", "descent.seeds=1"]
    shrunk += ["head.depth=2", "head.width=8", "data.dim=5", f"features.cache={tmp_path}/cache"]
    first, second = composed(*shrunk), composed(*shrunk, f"backbone.from_run={tmp_path}/first")
    admit(first, tmp_path / "first").perform()
    (tmp_path / "first" / ".hydra").mkdir()
    (tmp_path / "first" / ".hydra" / "config.yaml").write_text(yaml.safe_dump(asdict(first)))
    admit(second, tmp_path / "second").perform()
    summary = json.loads((tmp_path / "second/summary.json").read_text())
    assert summary["status"] == "completed" and summary["data"]["image_shape"] == [5, 1, 1]
    assert summary["data"]["train"] == dict.fromkeys("0123", 6) and summary["data"]["test"] == dict.fromkeys("0123", 5)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1  # the second found what the first had kept

"""A data set is added by its file, its configuration and its tests, and by nothing else."""

import json

import pytest
import yaml
from overlay import Overlay

from pipeline.data import DataError, Request, Source, data_set

# Vectors, made from the seed, that need no folder and have no settings of their own.
BLOBS = '''
"""Gaussian clouds around orthogonal means."""

import torch

from pipeline.data import Request, Source, data_set
from pipeline.runtime.randomness import generator


@data_set(classes=("a", "b", "c"))
def blobs(request: Request) -> Source:
    """30 training and 12 test vectors (5, 1, 1) of each class, drawn with the seed."""
    train, test = (_draw(count, generator(request.seed, f"data/blobs/{count}")) for count in (30, 12))
    return Source.of_tensors(train, test)


def _draw(count, randomness):
    labels = torch.arange(3).repeat_interleave(count)
    vectors = 3 * torch.eye(5)[labels] + torch.randn(3 * count, 5, generator=randomness)
    return vectors.view(-1, 5, 1, 1), labels
'''
# Grey images, with two settings of their own and a check of how they go together.
STRIPES = '''
"""Stripes, upright and lying."""

from dataclasses import dataclass

import torch

from pipeline.data import DataError, Request, Source, data_set
from pipeline.runtime.randomness import generator
from pipeline.runtime.settings import knob


@dataclass(frozen=True)
class Settings:
    """Of the stripes."""

    period: int = knob(2, "pixels from one stripe to the next", ge=2, le=8)
    ink: str = knob("white", "what is drawn on grey", choices=("white", "black"))


def check(request: Request) -> None:
    if request.settings.period == 8 and request.settings.ink == "black":
        raise DataError("data.period=8 with data.ink=black shows nothing; allowed: smaller ones.")


@data_set(classes=("upright", "lying"), settings=Settings, check=check)
def stripes(request: Request) -> Source:
    """40 training and 10 test images (1, 8, 8) of each class."""
    settings, randomness = request.settings, generator(request.seed, "data/stripes")
    labels = torch.arange(2).repeat(50)
    images = torch.randint(100, 140, (100, 1, 8, 8), dtype=torch.uint8, generator=randomness)
    drawn = 255 if settings.ink == "white" else 0
    images[labels == 0, :, :, :: settings.period] = drawn
    images[labels == 1, :, :: settings.period] = drawn
    return Source.of_tensors((images[:80], labels[:80]), (images[80:], labels[80:]))
'''
FILES = {
    "pipeline/data/sets/blobs.py": BLOBS,
    "conf/data/blobs.yaml": "# Gaussian clouds.\nname: blobs\nclasses: [a, c]\n",
    "pipeline/data/sets/stripes.py": STRIPES,
    "conf/data/stripes.yaml": "# Stripes.\nname: stripes\nperiod: 3\n",
}
SMALL = ["backbone.hidden=[8]", "backbone.epochs=2", "descent.steps=20", "descent.seeds=1", "head.depth=2"]
SMALL += ["descent.records_per_decade=1"]
SMALL += ["head.width=8", "logger=none", "record.figures=false", "-q"]


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> Overlay:
    """The package with both data sets, and a run of each."""
    overlay = Overlay(tmp_path_factory.mktemp("overlay"), FILES)
    overlay.dnc(*SMALL, "data=blobs", "hydra.run.dir=outputs/blobs")
    overlay.dnc(*SMALL, "data=stripes", "data.ink=black", "hydra.run.dir=outputs/stripes")
    return overlay


def test_runs_of_added_data_sets_are_recorded_with_their_settings(added):
    for name, classes, count in (("blobs", ["a", "c"], 30), ("stripes", ["upright", "lying"], 40)):
        folder = added.folder / "outputs" / name
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "completed"
        assert summary["data"]["name"] == name and summary["data"]["train"] == dict.fromkeys(classes, count)
        assert (folder / "record.csv").read_text().count("\n") > 20
    recorded = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())["data"]
    assert recorded["period"] == 3 and recorded["ink"] == "black"


def test_added_data_sets_are_listed_by_help_with_their_settings_and_whose_these_are(added):
    shown = added.dnc("--help", "data=stripes").stdout
    choices = next(line for line in shown.splitlines() if line.startswith("  data "))
    names = next(line for line in shown.splitlines() if line.startswith("    data.name "))
    assert all(name in line for name in ("blobs", "stripes", "digits") for line in (choices, names))
    lines = [line.split(maxsplit=2) for line in shown.splitlines() if line.startswith("    data.")]
    settings = {key: (value, text) for key, value, text in lines}
    assert settings["data.period"] == ("3", "pixels from one stripe to the next, for data=stripes")
    assert settings["data.ink"] == ("white", "what is drawn on grey, for data=stripes (white, black)")


def test_runs_of_added_data_sets_are_listed(added):
    shown = added.dnc("list", "outputs").stdout
    assert "blobs" in shown and "stripes" in shown and shown.count("completed") == 2


REFUSED = {
    "data.period=5": "data.period=5 belongs to data=stripes, but data=digits is chosen; "
    "allowed: data.period=2, or data=stripes.",
    "data=blobs data.ink=black": "data.ink=black belongs to data=stripes, but data=blobs is chosen; "
    "allowed: data.ink=white, or data=stripes.",
    "data=stripes data.period=9": "data.period=9 is out of range; allowed: an integer >= 2 and <= 8.",
    "data=stripes data.ink=red": "data.ink=red is not known; allowed: white, black.",
    "data=stripes data.perod=3": "data.perod is not a known key",
    "data=stripes data.period=8 data.ink=black": "data.period=8 with data.ink=black shows nothing",
}


def test_settings_of_other_data_sets_and_bad_ones_are_refused_in_one_sentence(added):
    code = """
import contextlib, io, json, sys
from pipeline.cli.app import main

said = {}
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments.split()
    with contextlib.redirect_stderr(io.StringIO()) as stderr, contextlib.suppress(SystemExit):
        main()
    said[arguments] = stderr.getvalue()
print(json.dumps(said))
"""
    said = json.loads(added.python("-c", code, json.dumps(list(REFUSED))).stdout)
    for arguments, sentence in REFUSED.items():
        assert said[arguments].startswith(f"error: {sentence}") and said[arguments].count("\n") == 1


def test_the_functions_of_the_package_take_the_settings_by_keyword(added):
    code = """
from pipeline.data import DataError, load_images, validate_request
from pipeline.data.settings import DataConfig

narrow, wide = (load_images("stripes", period=period).train.images[0, 0, 0] for period in (2, 4))
assert narrow.eq(255).nonzero().flatten().tolist() == [0, 2, 4, 6] and wide.eq(255).sum() == 2
first, again, other = (load_images("blobs", seed=seed, period=2).train.images for seed in (1, 1, 2))
assert first.equal(again) and not first.equal(other) and first.shape == (90, 5, 1, 1)
load_images("stripes", ink="black")
for options in ({"period": 1}, {"period": 2.5, "ink": "red"}, {"perod": 3}, {"period": 8, "ink": "black"}):
    for call in (validate_request, load_images):
        try:
            call("stripes", **options)
        except DataError as error:
            assert "data." in str(error)
        else:
            raise AssertionError(options)
assert "period" in DataConfig(name="stripes").relevant and "period" not in DataConfig(name="blobs").relevant
"""
    added.python("-c", code)


def test_two_data_sets_with_one_name_for_different_settings_are_named_on_import(tmp_path):
    other = STRIPES.replace("def stripes", "def checks").replace("knob(2,", "knob(4,")
    overlay = Overlay(tmp_path, {"pipeline/data/sets/stripes.py": STRIPES, "pipeline/data/sets/checks.py": other})
    done = overlay.python("-c", "import pipeline.config", check=False)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith(
        "data.period belongs to data=checks (int, default 4) and to data=stripes (int, default 2): "
        "rename one of them, or give both the same type, default and limits."
    )


def test_a_data_set_is_called_like_the_file_of_its_function():
    @data_set(classes=["a", "b"], needs_root=True)
    def anything(request: Request) -> Source:
        raise AssertionError

    assert anything.name == "test_data_registry" and anything.class_names(Request()) == ("a", "b")
    assert anything.knows_its_classes and anything.check(Request()) is None


@pytest.mark.parametrize("bad", [{"samples_per_class": 0}, {"image_size": True}, {"test_fraction": float("nan")}])
def test_a_request_holds_numbers_within_their_range(bad):
    with pytest.raises(DataError, match=rf"^data\.{next(iter(bad))}="):
        Request(**bad)

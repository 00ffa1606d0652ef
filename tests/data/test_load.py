import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from pipeline.data import DataError, Split, class_names, known_datasets, load_images, registry, validate_request

SETS = registry.data_sets()
TESTS = Path(__file__).parent / "sets"


@pytest.fixture(params=SETS)
def every(request, tmp_path) -> tuple[str, dict]:
    """A data set and what `load_images` needs to find its files; skipped where real files are not there.

    A set that needs a folder that nobody publishes has an `example_root(folder)` in its own test file, which fills one.
    """
    name, found = request.param, SETS[request.param]
    if not found.needs_root:
        return name, {}
    if found.torchvision is None:
        return name, {"root": module_of_tests(name).example_root(tmp_path / "files")}
    root = request.getfixturevalue("data_root")
    try:
        validate_request(name, root=root)
    except DataError as error:
        pytest.skip(f"DATA_ROOT has no {name}: {error}")
    return name, {"root": root}


@pytest.fixture
def labelled(every) -> tuple[str, dict]:
    """The same for data sets whose samples have one label each."""
    if SETS[every[0]].kind == "text":
        pytest.skip("a text has a label for each position, and no list of classes")
    return every


def rows_of(split: Split) -> set[tuple[int, bytes]]:
    images = [image.numpy().tobytes() for image in split.images]
    return set(zip(split.labels.tolist(), images, strict=True))


def module_of_tests(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tests_of_{name}", TESTS / f"test_{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_data_set_has_its_configuration_and_its_tests():
    conf = Path(__file__).parents[2] / "conf" / "data"
    for name in known_datasets():
        assert yaml.safe_load((conf / f"{name}.yaml").read_text())["name"] == name
        assert (TESTS / f"test_{name}.py").is_file()
    assert {file.stem for file in conf.glob("*.yaml")} == set(known_datasets())


def test_every_data_set_gives_sound_images_of_its_classes_and_takes_them_by_name_and_index(labelled):
    name, where = labelled
    names = class_names(name, **where)
    data = load_images(name, **where, classes=[names[1], 0])
    assert data.name == name and data.classes == (names[1], names[0])
    for split in (data.train, data.test):  # their types and shapes are `Split`'s business
        assert split.labels.unique().tolist() == [0, 1]
        assert split.images.shape[1:] == data.image_shape
    other = load_images(name, **where, classes=[0, 1])
    assert torch.equal(other.test.images, data.test.images) and torch.equal(other.test.labels, 1 - data.test.labels)


def test_every_data_set_gives_nested_subsets_that_are_a_function_of_the_seed(labelled):
    name, where = labelled
    asked = where | {"classes": [0, 1], "seed": 5}
    small, again, large = (load_images(name, samples_per_class=count, **asked).train for count in (3, 3, 7))
    assert torch.equal(small.images, again.images) and torch.equal(small.labels, again.labels)
    assert small.labels.bincount().tolist() == [3, 3]
    assert rows_of(small) <= rows_of(large)


def test_every_data_set_refuses_beforehand_what_it_would_refuse_to_load(every, tmp_path):
    name, where = every
    bad = [{"classes": [0]}, {"classes": [0, 10**6]}, {"classes": [0, 0]}, {"image_size": 0}, {"test_fraction": 0.0}]
    bad += [{"nothing_of_that_name": 3}]
    if where:
        (tmp_path / "empty").mkdir()
        bad += [{"root": None}, {"root": tmp_path / "nowhere"}, {"root": tmp_path / "empty"}]
    for options in bad:
        sentences = []
        for call in (validate_request, load_images):
            with pytest.raises(DataError) as error:
                call(name, **where | options)
            sentences.append(str(error.value))
        assert sentences[0] == sentences[1] and "\n" not in sentences[0], options
        assert next(iter(options)) in sentences[0], options
    validate_request(name, **where)


def test_class_names_need_no_files_for_published_sets():
    assert class_names("digits") == class_names("mnist") == tuple("0123456789")
    assert class_names("fashion_mnist")[0] == "T-shirt/top"
    assert class_names("cifar10")[:2] == ("airplane", "automobile")


def test_a_class_list_chooses_the_images_and_defines_the_labels():
    full, pair = load_images("digits"), load_images("digits", classes=["7", 2])
    assert pair.classes == ("7", "2") and pair.num_classes == 2
    for split, of_full in ((pair.train, full.train), (pair.test, full.test)):
        for label, digit in enumerate((7, 2)):
            assert torch.equal(split.images[split.labels == label], of_full.images[of_full.labels == digit])
        assert len(split) == ((of_full.labels == 7) | (of_full.labels == 2)).sum()


def test_a_digit_as_number_or_in_quotes_is_the_same_class():
    by_number, by_name = load_images("digits", classes=[3, 5]), load_images("digits", classes=["3", "5"])
    assert torch.equal(by_number.train.images, by_name.train.images)


def test_samples_per_class_cuts_the_training_split_only():
    data = load_images("digits", classes=[0, 1], samples_per_class=11)
    assert data.train.labels.bincount().tolist() == [11, 11]
    assert torch.equal(data.test.images, load_images("digits", classes=[0, 1]).test.images)


def test_the_subset_is_a_function_of_the_seed():
    first, again, other = (load_images("digits", samples_per_class=11, seed=seed).train.images for seed in (4, 4, 5))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_standardisation_uses_the_training_images_left_after_choosing():
    data = load_images("digits", classes=[0, 1], samples_per_class=11)
    scaled = data.train.images.double() / 255
    torch.testing.assert_close(data.mean, scaled.mean((0, 2, 3)).float())
    torch.testing.assert_close(data.std, scaled.std((0, 2, 3), correction=0).float())


def test_image_size_enlarges_the_digits():
    data = load_images("digits", classes=[0, 1], image_size=16)
    assert data.image_shape == (1, 16, 16) and data.train.images.dtype == torch.uint8
    small = load_images("digits", classes=[0, 1]).train.images
    assert (data.train.images.double().mean() - small.double().mean()).abs() < 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imagenet", {}, r"data=imagenet is not a known data set; allowed: .*digits"),
        ("digits", {"classes": [0]}, r"data\.classes=\[0\] has 1 class"),
        ("digits", {"classes": [0, 10]}, r"10 is no class"),
        ("cifar10", {"classes": ["aeroplane", 1], "download": True, "root": "."}, r"did you mean 'airplane'"),
        ("digits", {"samples_per_class": 0}, r"data\.samples_per_class=0 is out of range; allowed: an integer >= 1"),
        ("digits", {"samples_per_class": 1.5}, r"data\.samples_per_class=1\.5"),
        ("digits", {"samples_per_class": True}, r"data\.samples_per_class=True"),
        ("digits", {"image_size": 0}, r"data\.image_size=0"),
        ("digits", {"test_fraction": 1.0}, r"data\.test_fraction=1\.0 is out of range"),
        ("digits", {"test_fraction": float("nan")}, r"data\.test_fraction=nan"),
        ("mnist", {}, r"data\.root=null, but data=mnist needs its files"),
        ("mnist", {"download": True}, r"data\.root=null"),
        ("image_folder", {}, r"data\.root=null"),
        ("image_folder", {"root": "nowhere", "download": True}, r"data\.root=nowhere is not an existing folder"),
        ("mnist", {"root": "nowhere"}, r"data\.root=nowhere is not an existing folder"),
    ],
)
def test_a_bad_request_is_refused_before_any_file_is_read(name, options, message, monkeypatch):
    unread = {key: replace(found, open=lambda request: pytest.fail("a file was read")) for key, found in SETS.items()}
    monkeypatch.setattr(registry, "data_sets", lambda: unread)
    for call in (validate_request, load_images):
        with pytest.raises(DataError, match=message) as error:
            call(name, **options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")],
)
def test_a_root_without_the_data_sets_folder_says_which_is_missing(name, folder, tmp_path):
    with pytest.raises(DataError, match=rf"has no folder {folder}; allowed: .*data\.download=true"):
        validate_request(name, root=tmp_path)
    validate_request(name, root=tmp_path / "new", download=True)


def test_a_missing_file_is_named_and_a_packed_one_noticed(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").touch()
    with pytest.raises(DataError, match=r"MNIST/raw/train-images-idx3-ubyte is missing \(only .*\.gz: unpack it\)"):
        validate_request("mnist", root=tmp_path)


def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch):
    def fail(self):
        raise RuntimeError("Error downloading x:\nTried a, got:\nb\n")

    monkeypatch.setattr("torchvision.datasets.MNIST.download", fail)
    with pytest.raises(DataError, match=r"data\.download=true: MNIST could not be fetched.*got: b\)\.$"):
        load_images("mnist", root=tmp_path, download=True)


def test_a_download_that_brings_nothing_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", lambda self, root, download: None)
    with pytest.raises(DataError, match="has no folder MNIST/raw"):
        load_images("mnist", root=tmp_path, download=True)

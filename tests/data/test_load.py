from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pipeline.data import DataError, class_names, digits, known_datasets, load_images, validate_request
from pipeline.data.load import DATA_SETS


def test_the_five_data_sets_are_known():
    assert known_datasets() == ("digits", "mnist", "fashion_mnist", "cifar10", "image_folder")


def test_class_names_need_no_files_for_published_sets():
    assert class_names("digits") == class_names("mnist") == tuple("0123456789")
    assert class_names("fashion_mnist")[0] == "T-shirt/top"
    assert class_names("cifar10")[:2] == ("airplane", "automobile")


def test_digits_keep_every_image_and_all_seventeen_grey_levels():
    data, original = load_images("digits"), load_digits()
    assert data.image_shape == (1, 8, 8) and data.classes == tuple("0123456789")
    ours = torch.cat([data.train.images, data.test.images]).flatten(1)
    restored = (ours.double() * 16 / 255).round().long()
    ours_rows = sorted((*row, label) for row, label in zip(restored.tolist(), labels_of(data), strict=True))
    assert ours_rows == sorted((*map(int, row), int(y)) for row, y in zip(original.data, original.target, strict=True))
    assert ours.unique().numel() == 17 and ours.max() == 255


def test_digits_are_those_of_scikit_learn_also_where_its_file_lies_elsewhere(monkeypatch):
    read = digits._bundled()
    monkeypatch.setattr(digits, "find_spec", lambda name: SimpleNamespace(origin="/nowhere/__init__.py"))
    for found, again, original in zip(read, digits._bundled(), load_digits(return_X_y=True), strict=True):
        assert np.array_equal(found, original) and np.array_equal(again, original)


def labels_of(data) -> list[int]:
    return torch.cat([data.train.labels, data.test.labels]).tolist()


def test_digits_have_a_fifth_of_each_class_set_aside_whatever_the_seed():
    data, other = load_images("digits", seed=0), load_images("digits", seed=1)
    counts = torch.from_numpy(load_digits().target).bincount()
    assert data.test.labels.bincount().tolist() == [round(0.2 * n) for n in counts.tolist()]
    assert torch.equal(data.test.images, other.test.images)


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
        ("imagenet", {}, r"data=imagenet is not a known data set; allowed: digits, mnist"),
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
    for dataset in DATA_SETS.values():
        monkeypatch.setattr(type(dataset), "open", lambda *args: pytest.fail("a file was read"))
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

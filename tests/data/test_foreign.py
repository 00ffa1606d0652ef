"""Rows of another data set, prepared like the known ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data import DataError, load_images


def folder_of(root, mode: str, size: tuple[int, int] = (8, 8), level=(200, 100, 50)):
    for name in ("x", "y"):
        (root / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", size, level).convert(mode).save(root / name / f"{number}.png")
    return root


def test_foreign_rows_have_the_shape_of_the_known_images_and_no_labels(tmp_path):
    root = folder_of(tmp_path, "RGB", (30, 20))
    data = load_images("digits", image_size=6, foreign="image_folder", foreign_root=root)
    assert data.foreign.images.shape == (2, 1, 6, 6)  # the fifth of each class that is set aside, scaled and cropped
    assert data.foreign.labels.tolist() == [-1, -1]
    assert data.foreign.images.unique().tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]
    plain = load_images("digits", image_size=6)
    assert torch.equal(data.mean, plain.mean) and torch.equal(data.train.images, plain.train.images)


def test_grey_foreign_images_get_three_equal_channels(tmp_path):
    root = folder_of(tmp_path / "known", "RGB")
    grey = folder_of(tmp_path / "foreign", "L")
    data = load_images("image_folder", root=root, foreign="image_folder", foreign_root=grey)
    assert data.foreign.images.shape == (2, 3, 8, 8)
    assert torch.equal(data.foreign.images[:, 0], data.foreign.images[:, 2])


def test_classes_that_are_left_out_may_be_the_foreign_rows():
    data, whole = load_images("digits", classes=[3, [5, 7]], foreign="digits"), load_images("digits")
    left = ~torch.isin(whole.test.labels, torch.tensor([3, 5, 7]))
    assert torch.equal(data.foreign.images, whole.test.images[left])
    with pytest.raises(DataError, match=r"data\.classes takes all of its classes; allowed: another data set, or fewer"):
        load_images("digits", classes=list(range(10)), foreign="digits")


def test_foreign_vectors_are_standardised_by_the_known_training_rows():
    data = load_images("mixture", standardize="center", foreign="cones", seed=1)
    known, cones = load_images("mixture", seed=1), load_images("cones", seed=1)
    expected = (cones.test.images.double() - known.train.images.double().mean(dim=0)).float()
    assert torch.equal(data.foreign.images, expected)


def test_foreign_rows_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.foreign=cones holds float32 of shape \(16, 1, 1\), and data=mixture"):
        load_images("mixture", dim=5, foreign="cones")
    np.save(tmp_path / "labels.npy", np.arange(2))
    with pytest.raises(DataError, match=r"data\.foreign=image_folder: data\.root="):
        load_images("digits", foreign="image_folder", foreign_root=tmp_path / "nowhere")


def test_a_foreign_set_is_downloaded_where_that_is_asked_for(tmp_path, monkeypatch):
    asked = []

    def fetch(name, root, parts):
        asked.append((name, root))
        raise DataError("no network")

    monkeypatch.setattr("pipeline.data.load.download_missing", fetch)
    with pytest.raises(DataError, match="no network"):
        load_images("digits", foreign="fashion_mnist", foreign_root=tmp_path, download=True)
    assert asked == [("FashionMNIST", tmp_path)]

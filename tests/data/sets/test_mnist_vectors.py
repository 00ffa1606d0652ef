"""MNIST's pixels as vectors."""

import torch

from pipeline.data import load_images


def test_rows_are_the_pixels_of_the_images_over_255(data_root):
    asked = {"root": data_root, "classes": [0, 1], "samples_per_class": 5}
    rows, images = (load_images(name, **asked) for name in ("mnist_vectors", "mnist"))
    assert rows.kind == "vectors" and rows.image_shape == (784, 1, 1)
    assert torch.equal(rows.train.labels, images.train.labels)
    torch.testing.assert_close(rows.train.images.flatten(1), images.train.images.flatten(1) / 255)
    torch.testing.assert_close(rows.test.images.flatten(1), images.test.images.flatten(1) / 255)
    assert torch.equal(rows.standardise(rows.train.images), rows.train.images)


def test_the_mean_image_is_taken_from_both_splits(data_root):
    asked = {"root": data_root, "classes": [0, 1], "samples_per_class": 5}
    plain, centred = (load_images("mnist_vectors", **asked, standardize=how) for how in ("none", "center"))
    mean = plain.train.images.double().mean(0)
    torch.testing.assert_close(centred.train.images, (plain.train.images - mean).float())
    torch.testing.assert_close(centred.test.images, (plain.test.images - mean).float())

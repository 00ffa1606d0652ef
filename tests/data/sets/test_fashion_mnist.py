"""Fashion-MNIST's real files, where they are."""

import pytest

from pipeline.data import load_images


def test_fashion_mnist_has_the_published_number_of_images_of_each_class(data_root):
    if not (data_root / "FashionMNIST").is_dir():
        pytest.skip("no folder FashionMNIST in DATA_ROOT; Debian's package dataset-fashion-mnist has its files, packed")
    data = load_images("fashion_mnist", root=data_root)
    assert data.train.labels.bincount().tolist() == [6000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10

"""MNIST's real files, where they are."""

import pytest
import torch

from pipeline.data import DataError, load_images

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_has_the_published_images_of_each_class(data_root):
    data = load_images("mnist", root=data_root)
    assert data.image_shape == (1, 28, 28)
    assert data.train.labels.bincount().tolist() == TRAIN_COUNTS
    assert data.test.labels.bincount().tolist() == TEST_COUNTS
    # The mean and std that every MNIST example on the web quotes.
    torch.testing.assert_close(data.mean, torch.tensor([0.1307]), atol=5e-5, rtol=0)
    torch.testing.assert_close(data.std, torch.tensor([0.3081]), atol=5e-5, rtol=0)


def test_mnist_images_equal_what_torchvision_reads(data_root):
    from torchvision.datasets import MNIST

    reference = MNIST(data_root, train=False)
    data = load_images("mnist", root=data_root)
    assert torch.equal(data.test.images.squeeze(1), reference.data)
    assert torch.equal(data.test.labels, reference.targets)


def flip_a_bit(content: bytearray) -> None:
    content[len(content) // 2] ^= 1


def truncate(content: bytearray) -> None:
    del content[-1000:]


def label_eleven(content: bytearray) -> None:
    content[500] = 11


def bad_magic(content: bytearray) -> None:
    content[3] = 9


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("train-images-idx3-ubyte", flip_a_bit, "MD5"),
        ("t10k-images-idx3-ubyte", truncate, "announces 7840016"),
        ("train-labels-idx1-ubyte", label_eleven, r"label 11; allowed: 0\.\.9"),
        ("t10k-labels-idx1-ubyte", bad_magic, "magic number"),
    ],
)
def test_damage_to_a_real_mnist_file_is_found_and_the_file_named(data_root, tmp_path, file, damage, message):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (data_root / "MNIST" / "raw").iterdir():
        (raw / path.name).symlink_to(path.resolve())
    content = bytearray((raw / file).read_bytes())
    damage(content)
    (raw / file).unlink()
    (raw / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_images("mnist", root=tmp_path, classes=[0, 1])
    assert file in str(error.value)

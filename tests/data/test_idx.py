"""MNIST's format: a small set of our own making with every kind of damage, and the real files where they are."""

import hashlib
import struct

import pytest
import torch

from pipeline.data import DataError, load_images
from pipeline.data.idx import IdxImages

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
LABELS = bytes([0, 1, 2, 1, 0])
PIXELS = bytes(range(5 * 2 * 3))
FILES = {
    f"{split}-{kind}": content
    for split in ("train", "t10k")
    for kind, content in {
        "images-idx3-ubyte": struct.pack(">4i", 2051, 5, 2, 3) + PIXELS,
        "labels-idx1-ubyte": struct.pack(">2i", 2049, 5) + LABELS,
    }.items()
}
SMALL = IdxImages("MNIST", ("a", "b", "c"), {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()})


@pytest.fixture
def small_root(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in FILES.items():
        (raw / name).write_bytes(content)
    return tmp_path


def test_sound_files_give_their_pixels_and_labels(small_root):
    source = SMALL.open(small_root, 0.2, None)
    images, _ = source.read(torch.tensor([1, 4]), torch.tensor([0]))
    assert images.tolist() == [[[[6, 7, 8], [9, 10, 11]]], [[[24, 25, 26], [27, 28, 29]]]]
    assert source.train_labels.tolist() == list(LABELS) and source.train_labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", FILES["train-images-idx3-ubyte"][:-1], r"has 45 bytes, but .* announces 46"),
        ("train-images-idx3-ubyte", FILES["train-images-idx3-ubyte"] + b"x", r"has 47 bytes"),
        ("t10k-images-idx3-ubyte", b"\0\0", r"has 2 bytes, too few for its 16-byte header"),
        ("t10k-labels-idx1-ubyte", b"", r"has 0 bytes, too few for its 8-byte header"),
        ("train-labels-idx1-ubyte", struct.pack(">2i", 2049, 0), r"is empty"),
        ("train-labels-idx1-ubyte", struct.pack(">2i", 2051, 5) + LABELS, r"magic number 2051, it should be 2049"),
        ("train-labels-idx1-ubyte", struct.pack(">2i", 2049, 5) + bytes([0, 1, 2, 3, 0]), r"label 3; allowed: 0\.\.2"),
        ("train-labels-idx1-ubyte", struct.pack(">2i", 2049, 4) + LABELS[:4], r"5 images but .* 4 labels"),
        ("t10k-labels-idx1-ubyte", struct.pack(">2i", 2049, 5) + bytes([1, 1, 2, 1, 0]), r"MD5"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(small_root, file, content, message):
    (small_root / "MNIST" / "raw" / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        SMALL.open(small_root, 0.2, None)
    assert file in str(error.value) and "\n" not in str(error.value)


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


def test_fashion_mnist_loads_where_its_files_are(data_root):
    if not (data_root / "FashionMNIST").is_dir():
        pytest.skip("no FashionMNIST folder in DATA_ROOT")
    data = load_images("fashion_mnist", root=data_root)
    assert data.train.labels.bincount().tolist() == [6000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10

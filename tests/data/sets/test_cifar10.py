import pytest
import torch

from pipeline.data import DataError, class_names, load_images

FOLDER = "cifar-10-batches-py"


def test_two_classes_of_cifar_are_torchvisions_images_in_torchvisions_order(data_root):
    from torchvision.datasets import CIFAR10

    data = load_images("cifar10", root=data_root, classes=["automobile", 0])
    reference = CIFAR10(data_root, train=False)
    targets = torch.tensor(reference.targets)
    expected = torch.from_numpy(reference.data).permute(0, 3, 1, 2)[targets <= 1]
    assert tuple(reference.classes) == class_names("cifar10")
    assert data.classes == ("automobile", "airplane") and data.image_shape == (3, 32, 32)
    assert torch.equal(data.test.images, expected)
    assert torch.equal(data.test.labels, 1 - targets[targets <= 1])
    assert data.train.labels.bincount().tolist() == [5000, 5000]


@pytest.fixture
def linked_root(data_root, tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    for path in (data_root / FOLDER).iterdir():
        (folder / path.name).symlink_to(path.resolve())
    return tmp_path


@pytest.mark.parametrize("file", ["data_batch_3", "batches.meta"])
def test_a_damaged_cifar_file_is_named_and_never_unpickled(linked_root, file, monkeypatch):
    path = linked_root / FOLDER / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    monkeypatch.setattr("pickle.load", lambda *args, **kwargs: pytest.fail("unpickled"))
    with pytest.raises(DataError, match=rf"{file} is not the published file: its MD5"):
        load_images("cifar10", root=linked_root, classes=[0, 1])


def test_a_missing_cifar_file_is_named(linked_root):
    (linked_root / FOLDER / "test_batch").unlink()
    with pytest.raises(DataError, match=rf"the file {FOLDER}/test_batch is missing"):
        load_images("cifar10", root=linked_root, classes=[0, 1])

"""Folders in the layout of Tiny-ImageNet."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.data import DataError, class_names, load_images, validate_request

NAMES = ("n01443537", "n01629819")


def example_root(folder: Path) -> Path:
    """Two classes of eight images, and three annotated ones of each to test on; the tests of all sets use it, too."""
    place = folder / "tiny-imagenet-200"
    (place / "val" / "images").mkdir(parents=True)
    lines = []
    for label, name in enumerate(NAMES):
        (place / "train" / name / "images").mkdir(parents=True)
        (place / "train" / name / f"{name}_boxes.txt").touch()
        for number in range(8):
            image = Image.new("RGB", (6, 6), (100 * label + number,) * 3)
            image.save(place / "train" / name / "images" / f"{name}_{number}.JPEG", quality=100)
    for number in range(6):
        Image.new("RGB", (6, 6), (100 * (number % 2),) * 3).save(place / "val" / "images" / f"val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{NAMES[number % 2]}\t0\t0\t5\t5\n")
    (place / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def root(tmp_path):
    return example_root(tmp_path)


def test_test_images_get_the_classes_of_their_annotations(root):
    for where in (root, root / "tiny-imagenet-200"):
        data = load_images("tiny_imagenet", root=where)
        assert data.classes == NAMES == class_names("tiny_imagenet", where) and data.image_shape == (3, 6, 6)
        assert data.train.labels.bincount().tolist() == [8, 8] and data.test.labels.tolist() == [0, 1] * 3
        for split in (data.train, data.test):
            assert ((split.images[:, 0, 0, 0] > 50).long() == split.labels).all()


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (
            "val_0.JPEG\tn9\n",
            r"val_annotations\.txt, line 1: n9 is no class; allowed: a file, a tab and one of n01443537",
        ),
        ("val_0.JPEG\n", r"line 1: nothing is no class"),
        (f"val_0.JPEG\t{NAMES[0]}\n", r"names no class for 5 image\(s\), first val_1\.JPEG"),
        (
            "".join(f"val_{n}.JPEG\t{NAMES[n % 2]}\n" for n in range(7)),
            r"1 annotated image\(s\) are missing, first val_6",
        ),
        ("".join(f"val_{n}.JPEG\t{NAMES[0]}\n" for n in range(6)), r"has no image of the class n01629819"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(root, annotations, message):
    (root / "tiny-imagenet-200" / "val" / "val_annotations.txt").write_text(annotations)
    with pytest.raises(DataError, match=message):
        load_images("tiny_imagenet", root=root)


def test_a_damaged_image_is_named_and_a_missing_file_too(root):
    (root / "tiny-imagenet-200" / "val" / "images" / "val_3.JPEG").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot be read: .*val_3\.JPEG"):
        load_images("tiny_imagenet", root=root)
    (root / "tiny-imagenet-200" / "val" / "val_annotations.txt").unlink()
    with pytest.raises(DataError, match=r"the file val/val_annotations\.txt is missing"):
        validate_request("tiny_imagenet", root=root)
    with pytest.raises(DataError, match=r"has no folders train and val"):
        validate_request("tiny_imagenet", root=root / "tiny-imagenet-200" / "val")

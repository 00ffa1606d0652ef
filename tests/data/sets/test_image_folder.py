"""Folders of one's own images, one per class."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from pipeline.data import DataError, class_names, load_images, validate_request

LEVELS = {"cat": 40, "dog": 90, "owl": 200}


def save(path: Path, level: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).convert(mode).save(path)


def example_root(folder: Path) -> Path:
    """Three classes of ten images 6 wide and 4 high, each of one level of its class's own; the tests of all sets, too,
    fill a folder with it."""
    for name, level in LEVELS.items():
        for number in range(10):
            save(folder / name / f"{number}.png", level + number)
    return folder


@pytest.fixture
def flat(tmp_path):
    return example_root(tmp_path)


def test_class_folders_give_images_labels_and_a_stratified_test_split(flat):
    data = load_images("image_folder", root=flat, test_fraction=0.3)
    assert data.classes == class_names("image_folder", flat) == ("cat", "dog", "owl")
    assert data.image_shape == (3, 4, 6)
    assert data.train.labels.bincount().tolist() == [7, 7, 7]
    assert data.test.labels.bincount().tolist() == [3, 3, 3]
    for label, level in enumerate(LEVELS.values()):
        both = torch.cat([split.images[split.labels == label] for split in (data.train, data.test)])
        assert both[:, 0, 0, 0].sort().values.tolist() == [level + number for number in range(10)]


def test_classes_and_samples_per_class_choose_before_reading(flat):
    (flat / "dog" / "0.png").write_bytes(b"not read, so not complained about")
    data = load_images("image_folder", root=flat, classes=["owl", "cat"], samples_per_class=5)
    assert data.classes == ("owl", "cat") and data.train.labels.bincount().tolist() == [5, 5]
    assert data.train.images[data.train.labels == 0].min() >= 200


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_given_splits_are_kept(tmp_path, test_name):
    for name, level in LEVELS.items():
        save(tmp_path / "train" / name / "a.png", level)
        save(tmp_path / "train" / name / "b.png", level)
        save(tmp_path / test_name / name / "c.png", level + 1)
    data = load_images("image_folder", root=tmp_path)
    assert data.train.images[:, 0, 0, 0].tolist() == [40, 40, 90, 90, 200, 200]
    assert data.test.images[:, 0, 0, 0].tolist() == [41, 91, 201]


def test_a_training_folder_alone_is_split(tmp_path):
    for name, level in LEVELS.items():
        for number in range(5):
            save(tmp_path / "train" / name / f"{number}.png", level)
    data = load_images("image_folder", root=tmp_path)
    assert (len(data.train), len(data.test)) == (12, 3)


def test_a_class_called_train_is_a_class(tmp_path):
    for name in ("plane", "train"):
        for number in range(2):
            save(tmp_path / name / f"{number}.png", 5)
    assert class_names("image_folder", tmp_path) == ("plane", "train")


def test_hidden_folders_are_no_classes(flat):
    (flat / ".ipynb_checkpoints").mkdir()
    assert class_names("image_folder", flat) == ("cat", "dog", "owl")


def test_different_sizes_need_image_size_and_two_files_are_named(flat):
    save(flat / "owl" / "odd.png", 9, size=(8, 8))
    with pytest.raises(DataError, match=r"data\.image_size=null, but .*0\.png is 6x4 and .*odd\.png is 8x8 pixels"):
        load_images("image_folder", root=flat)
    assert load_images("image_folder", root=flat, image_size=5).image_shape == (3, 5, 5)


def test_all_unreadable_files_are_listed_by_name(flat):
    truncated = (flat / "cat" / "3.png").read_bytes()[:-30]
    (flat / "cat" / "3.png").write_bytes(truncated)
    (flat / "dog" / "4.png").write_bytes(b"this is text")
    (flat / "owl" / "5.png").write_bytes(b"")
    with pytest.raises(DataError, match="3 image file") as error:
        load_images("image_folder", root=flat)
    assert all(f"{name}/{number}.png" in str(error.value) for name, number in (("cat", 3), ("dog", 4), ("owl", 5)))
    assert "\n" not in str(error.value)


def test_a_long_list_of_unreadable_files_is_cut_after_ten(flat):
    for number in range(10):
        (flat / "cat" / f"{number}.png").write_bytes(b"")
        (flat / "dog" / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"20 image file.* and 10 more\.$"):
        load_images("image_folder", root=flat)


def test_files_that_are_not_images_are_ignored(flat):
    (flat / "cat" / "notes.txt").write_text("none")
    assert len(load_images("image_folder", root=flat).train) == 24


def test_a_class_folder_without_images_is_named(flat):
    (flat / "yak").mkdir()
    with pytest.raises(DataError, match=r"yak holds no image; allowed file names end in \.jpg"):
        load_images("image_folder", root=flat)


def test_a_root_without_class_folders_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no class folders"):
        validate_request("image_folder", root=tmp_path)


def test_train_and_test_must_have_the_same_classes(tmp_path):
    for path in ("train/a", "train/b", "test/a", "test/c"):
        save(tmp_path / path / "0.png", 1)
    with pytest.raises(DataError, match=r"only one of train and test: b, c"):
        validate_request("image_folder", root=tmp_path)


def test_one_class_folder_is_not_enough(tmp_path):
    save(tmp_path / "a" / "0.png", 1)
    with pytest.raises(DataError, match="has 1 class"):
        validate_request("image_folder", root=tmp_path)


def test_what_is_read_and_what_is_not_is_told_once(tmp_path, caplog):
    for split in ("Training", "Testing", "Valid"):
        example_root(tmp_path / split)
    (tmp_path / "Training" / "cat" / "me").symlink_to(".")
    for name in ("Training/cat/a.gif", "Testing/dog/b.gif", "Testing/dog/Thumbs.db", "Testing/owl/c.txt"):
        (tmp_path / name).touch()
    caplog.set_level("INFO")
    data = load_images("image_folder", root=tmp_path, classes=["owl", 0])
    assert data.classes == ("owl", "cat") and (len(data.train), len(data.test)) == (20, 20)
    assert [record.getMessage() for record in caplog.records] == [
        f"data.root={tmp_path}: classes are the folders 'owl', 'cat' in {tmp_path}/Training; "
        f"tested on {tmp_path}/Testing",
        f"data.root={tmp_path}: not read: the folder Valid, 2 .gif, 1 .txt, 1 hidden or system file(s), "
        "1 link(s) within a class, whose targets are read in their place",
    ]


def test_folders_named_by_numbers_are_taken_by_name(tmp_path, caplog):
    for name in ("1", "2", "3", "10"):
        for number in range(2):
            save(tmp_path / name / f"{number}.png", int(name))
    caplog.set_level("INFO")
    data = load_images("image_folder", root=tmp_path, classes=[1, 2])
    assert data.classes == ("1", "2") and data.train.images[:, 0, 0, 0].tolist() == [1, 2]
    assert "classes are the folders '1', '2' in" in caplog.text
    with pytest.raises(DataError, match=r"0 is no class of this data set, whose names are numbers"):
        validate_request("image_folder", root=tmp_path, classes=[0, 1])


def test_a_folder_for_validation_without_one_for_tests_is_the_test_split(tmp_path):
    for split, more in (("TRAIN", 0), ("Validation", 1)):
        for name, level in LEVELS.items():
            save(tmp_path / split / name / "a.png", level + more)
    data = load_images("image_folder", root=tmp_path)
    assert data.test.images[:, 0, 0, 0].tolist() == [41, 91, 201]


def test_a_folder_around_the_class_folders_is_noticed(tmp_path):
    example_root(tmp_path / "archive" / "Training")
    with pytest.raises(DataError, match=rf"1 class folder, .*; allowed: .* perhaps data\.root={tmp_path}/archive\.$"):
        validate_request("image_folder", root=tmp_path)


def test_splits_within_the_classes_are_not_mixed(tmp_path):
    for name in LEVELS:
        for split in ("train", "test"):
            save(tmp_path / name / split / "a.png", 1)
    with pytest.raises(DataError, match=r"splits within a class: cat/train and cat/test"):
        load_images("image_folder", root=tmp_path)


def test_a_file_that_is_too_large_is_named_with_the_key(flat):
    Image.new("1", (20_000, 20_000)).save(flat / "cat" / "big.png")
    with pytest.raises(DataError, match=r"^data\.root has 1 image file\(s\) .*cat/big\.png \(Image size .*\)\.$"):
        load_images("image_folder", root=flat, image_size=8)


def test_a_broken_file_whose_name_is_not_utf8_is_named_in_printable_words(flat):
    with open(os.fsencode(flat) + b"/cat/\xe9.png", "wb") as file:
        file.write(b"no image")
    with pytest.raises(DataError, match=r"cat/\\xe9\.png \(cannot identify image file") as error:
        load_images("image_folder", root=flat)
    str(error.value).encode()


def test_a_readable_file_whose_name_is_not_utf8_is_read(flat):
    os.rename(flat / "cat" / "0.png", os.fsencode(flat) + b"/cat/\xe9.png")
    assert len(load_images("image_folder", root=flat).train) == 24

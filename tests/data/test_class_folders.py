"""Which folders are splits and which are classes."""

import os
from pathlib import Path

import pytest

from pipeline.data import DataError
from pipeline.data.class_folders import check_no_overlap, find_layout, refuse_splits_in_classes, split_kind


def fill(root: Path, *places: str) -> Path:
    """An image in each of these folders."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / "0.png").write_bytes(b"an image")
    return root


def splits(root: Path, *names: str) -> Path:
    """Folders of these names that hold two classes each."""
    return fill(root, *(f"{name}/{label}" for name in names for label in "ab"))


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "Training", "training_set", "trainset"])
@pytest.mark.parametrize("test", ["test", "Testing", "Test-Data", "val", "Valid", "validation", "VALIDATION"])
def test_splits_are_recognised_by_their_usual_names_in_any_case(tmp_path, train, test):
    layout = find_layout(splits(tmp_path, train, test))
    assert (layout.train.name, layout.test.name, layout.classes) == (train, test, ("a", "b"))
    assert layout.left_out == ()


@pytest.mark.parametrize("name", ["trains", "trained", "contest", "valley", "cat", "restrain", "1"])
def test_other_words_are_no_splits(name):
    assert split_kind(name) is None


@pytest.mark.parametrize("validation", ["val", "Valid", "validation"])
def test_a_validation_folder_beside_a_test_folder_is_told(tmp_path, validation):
    layout = find_layout(splits(tmp_path, "train", "test", validation))
    assert layout.test.name == "test" and layout.left_out == (f"the folder {validation}",)


def test_a_test_folder_without_classes_gives_way_to_one_for_validation(tmp_path):
    layout = find_layout(fill(splits(tmp_path, "train", "val"), "test"))
    assert layout.test.name == "val" and layout.left_out == ("the folder test",)


def test_what_lies_beside_the_splits_or_the_classes_is_told(tmp_path):
    fill(splits(tmp_path, "train", "test"), "masks", "train", "test", ".")
    left_out = find_layout(tmp_path).left_out
    assert sorted(left_out) == [
        *(f"1 image(s) right in {place}" for place in (tmp_path, tmp_path / "test", tmp_path / "train")),
        "the folder masks",
    ]


@pytest.mark.parametrize(
    "places",
    [
        ("Training", "Testing"),  # images right in them
        ("train", "test", "cat"),
        ("Training", "Testing/a", "Testing/b"),
        ("test/a", "test/b", "val/a", "val/b"),
        ("a", "b", "val/a", "val/b"),
        ("seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b", "seg_pred"),
        ("BirdsTrain/a", "BirdsValid/a"),
        ("train2017", "val2017"),
    ],
)
def test_splits_are_never_taken_for_classes(tmp_path, places):
    with pytest.raises(DataError, match=r"^data\.root=.* seem to be splits and not classes: .*; allowed: <root>/train"):
        find_layout(fill(tmp_path, *places))


@pytest.mark.parametrize(
    "classes", [("plane", "train"), ("test", "x"), ("eye_test", "steam_train"), ("contest", "restrain"), ("dev", "ops")]
)
def test_classes_that_are_named_like_splits_are_classes(tmp_path, classes):
    assert find_layout(fill(tmp_path, *classes)).classes == classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "Training", "test"), "several training folders: Training, train; allowed: one"),
        (("train", "test", "Testing"), "several folders for testing: Testing, test; allowed: one"),
        (("train", "val", "validation"), "several folders for testing: val, validation; allowed: one"),
    ],
)
def test_two_folders_for_one_split_are_refused(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        find_layout(splits(tmp_path, *names))


def test_a_class_of_trains_with_folders_in_it_is_not_taken_for_the_only_split(tmp_path):
    with pytest.raises(
        DataError, match=r"class folders in train and images in plane beside it: .*a split or a class\?"
    ):
        find_layout(fill(tmp_path, "plane", "train/steam", "train/diesel"))


def test_splits_within_the_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match="splits within a class: cat/Train and cat/Test; allowed: "):
        refuse_splits_in_classes(tmp_path, {"cat": ["Test", "Train", "x"], "dog": []})
    refuse_splits_in_classes(tmp_path, {"toys": ["train", "plane"]})


@pytest.mark.parametrize("target", [".", "..", "a"])
def test_a_link_to_what_is_there_already_is_no_class(tmp_path, target):
    root = fill(tmp_path / "root", "a", "b")
    (root / "link").symlink_to(target)
    layout = find_layout(root)
    assert layout.classes == ("a", "b")
    assert layout.left_out == (f"the link {root / 'link'} to {(root / target).resolve()}",)


def test_a_link_to_what_is_hidden_is_a_class(tmp_path):
    fill(tmp_path, "a", ".store/5f2c")
    (tmp_path / "b").symlink_to(".store/5f2c")
    assert find_layout(tmp_path).classes == ("a", "b")


def test_folders_for_splits_and_classes_may_be_links(tmp_path):
    root = splits(tmp_path / "root", "store/v1", "store/v2")
    fill(tmp_path, "pool/c")
    (root / "store/v1/c").symlink_to(tmp_path / "pool/c")
    fill(root, "store/v2/c")
    (root / "train").symlink_to("store/v1")
    (root / "test").symlink_to("store/v2")
    layout = find_layout(root)
    assert (layout.train, layout.test, layout.classes) == (root / "train", root / "test", ("a", "b", "c"))
    check_no_overlap(layout)


@pytest.mark.parametrize(("link", "target"), [("test", "train"), ("test/b", "../train/a"), ("train/b", "../test")])
def test_links_that_put_files_into_two_classes_or_splits_are_refused(tmp_path, link, target):
    fill(tmp_path, "train/a", "train/a-c", "test/a", "test/a-c")
    for split in ("train", "test"):
        fill(tmp_path, f"{split}/b")
    place = tmp_path / link
    os.rename(place, tmp_path / ".away")
    place.symlink_to(target)
    with pytest.raises(DataError, match=r"^data\.root: the class folders .* and .* hold the same files; allowed: "):
        check_no_overlap(find_layout(tmp_path))


def test_a_class_whose_name_is_not_utf8_is_refused_in_printable_words(tmp_path):
    fill(tmp_path, "cafe")
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"^data\.root=.* whose names are not UTF-8: caf\\xe9; allowed: ") as error:
        find_layout(tmp_path)
    str(error.value).encode()

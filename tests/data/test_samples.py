"""Which files in class folders are samples, and that the others are told."""

import os
from pathlib import Path

import pytest
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from pipeline.data import DataError
from pipeline.data.samples import ENDINGS, list_samples


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of three images each, one of them a folder deeper."""
    for name in ("a/0.png", "a/1.JPG", "a/deep/2.png", "b/0.png", "b/1.png", "b/2.png"):
        add(tmp_path / "root" / name)
    return tmp_path / "root"


def add(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"an image")
    return path


def places(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in list_samples(root, ("a", "b")).paths]


THESE = ["a/0.png", "a/1.JPG", "a/deep/2.png", "b/0.png", "b/1.png", "b/2.png"]


def test_files_are_listed_in_the_order_of_torchvision(root):
    for name in ("a-z/0.png", "a/deep.er/0.png", "a/deep/Z/0.png", "a/deep-er/0.png", "a/deep/a.png", "a/.png.png"):
        add(root / name)
    (root / "a" / ".png.png").unlink()
    names = ("a", "a-z", "b")
    found = list_samples(root, names)
    samples = make_dataset(str(root), {name: label for label, name in enumerate(names)}, extensions=IMG_EXTENSIONS)
    assert [(str(path), label) for path, label in zip(found.paths, found.labels.tolist(), strict=True)] == samples
    assert ENDINGS == IMG_EXTENSIONS and found.left_out == {}


@pytest.mark.parametrize(
    "name",
    [
        *("a/.ipynb_checkpoints/0.png", "a/deep/.ipynb_checkpoints/2.png", "b/.Trash-1000/files/0.png"),
        *("a/__MACOSX/0.png", "a/@eaDir/0.png/thumb.jpg", "a/._0.png", "b/.hidden.png"),
        *("a/Thumbs.db", "a/desktop.ini", "a/.DS_Store"),
    ],
)
def test_what_a_system_or_a_program_leaves_behind_is_no_sample(root, name):
    add(root / name)
    found = list_samples(root, ("a", "b"))
    assert places(root) == THESE
    assert [kind.partition("(")[0] for kind in found.left_out] in (
        ["hidden or system file"],
        ["hidden or system folder"],
    )


def test_endings_that_are_left_out_are_counted(root):
    for name in ("a/0.gif", "a/deep/1.GIF", "b/notes.txt", "b/README"):
        add(root / name)
    assert list_samples(root, ("a", "b")).left_out == {".gif": 2, ".txt": 1, "without an ending": 1}
    assert places(root) == THESE


@pytest.mark.parametrize(
    ("link", "target"),
    [
        *(("a/me", "."), ("a/deep/up", ".."), ("a/deep/root", "../.."), ("a/again", "deep")),  # folders
        *(("a/b", "../b"), ("a/x.png", "../b/0.png"), ("a/more", "../../pool"), ("a/y.png", "../../pool/p.png")),
        ("a/same.png", "0.png"),
    ],
)
def test_a_link_adds_nothing_to_a_class_that_has_files(root, link, target):
    add(root.parent / "pool" / "p.png")
    (root / link).symlink_to(target)
    assert places(root) == THESE
    assert sum(list_samples(root, ("a", "b")).left_out.values()) == 1


def test_a_class_folder_may_be_a_link(root):
    (root / "b").rename(root.parent / "elsewhere")
    (root / "b").symlink_to("../elsewhere")
    assert places(root) == THESE


def test_what_only_a_link_gives_an_images_name_is_read_once(root):
    add(root / "a" / ".store" / "5f2c")
    for name in ("3.png", "4.png"):
        (root / "a" / name).symlink_to(".store/5f2c")
    assert places(root) == [*THESE[:3], "a/3.png", *THESE[3:]]


@pytest.fixture
def linked(tmp_path) -> Path:
    """Links and nothing else, as in a folder of huggingface_hub."""
    for name in ("p", "q", "r"):
        add(tmp_path / "pool" / name)
    for place, target in (("a/0.png", "p"), ("a/1.png", "q"), ("b/0.png", "r")):
        path = tmp_path / "root" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path / "pool" / target)
    return tmp_path / "root"


def test_folders_of_links_alone_give_each_file_once(linked):
    (linked / "a" / "2.png").symlink_to(linked.parent / "pool" / "q")
    assert places(linked) == ["a/0.png", "a/1.png", "b/0.png"]


def test_links_to_one_file_in_two_classes_are_refused(linked):
    (linked / "b" / "1.png").symlink_to(linked.parent / "pool" / "p")
    with pytest.raises(DataError, match=r"^data\.root: .*a/0\.png and .*b/1\.png are links to one file in two classes"):
        places(linked)


def test_a_class_of_links_into_another_class_is_empty(tmp_path):
    add(tmp_path / "b" / "0.png")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").symlink_to("../b/0.png")
    with pytest.raises(DataError, match=r"a holds no image \(only 1 link\(s\) that lead out of their class\); allowed"):
        places(tmp_path)


def test_a_link_to_nothing_is_a_file_that_cannot_be_read_and_not_left_out(root):
    (root / "a" / "3.png").symlink_to("nowhere")
    assert "a/3.png" in places(root)


def test_a_folder_that_cannot_be_read_is_named(root, monkeypatch):
    scan = os.scandir

    def scandir(place):
        if str(place).endswith("deep"):
            raise PermissionError(13, "Permission denied")  # which the superuser never meets
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"^data\.root: the folder .*a/deep cannot be read \(Permission denied\)\.$"):
        places(root)

"""A table of groups beside a folder of images."""

import pytest
from PIL import Image

from pipeline.data import DataError, load_images

FILES = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4)]


@pytest.fixture
def root(tmp_path):
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 10 * int(file[4]) + (100 if "dog" in file else 0)).save(tmp_path / file)
    return tmp_path


def write(root, lines: list[str], header: str = "file,group") -> None:
    (root / "groups.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")


def by_number(file: str) -> str:
    return "old" if int(file[4]) % 2 else "new"


def test_the_table_tells_the_group_of_each_image(root):
    write(root, [f"{file},{by_number(file)},ignored" for file in FILES], "file,group,age")
    data = load_images("image_folder", root=root)
    assert data.groups == ("new", "old")
    for split in (data.train, data.test):
        numbers = (split.images[:, 0, 0, 0] % 100) // 10
        assert split.groups.tolist() == (numbers % 2).tolist()


def test_groups_that_are_numbers_are_in_their_order_and_only_used_images_need_one(root):
    write(root, [f"./{file},{10 if int(file[4]) > 1 else 9}" for file in FILES if "cat" in file or file[4] != "9"])
    assert load_images("image_folder", root=root).groups == ("9", "10")
    data = load_images("image_folder", root=root, flip={"rate": 1.0, "group": 10, "from": "cat", "to": "dog"})
    changed = data.train.given != data.train.labels
    assert (data.train.groups[changed] == 1).all() and changed.any()


def test_without_a_table_there_are_no_groups(root):
    assert load_images("image_folder", root=root).train.groups is None


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        (FILES, "file", r"groups\.csv has no column group; allowed: a first line that names file and group"),
        ([f"{FILES[0]},a"], "file,group", r"names no group for 7 image\(s\), first cat/1\.png"),
        ([f"{FILES[0]},a", f"{FILES[0]},b"], "file,group", r"line 3: cat/0\.png is in the groups a and b"),
        ([f"{FILES[0]},"], "file,group", r"line 2: a value is missing"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(root, lines, header, message):
    write(root, lines, header)
    with pytest.raises(DataError, match=message):
        load_images("image_folder", root=root)


def test_groups_of_the_files_and_made_ones_do_not_go_together(root):
    write(root, [f"{file},a" for file in FILES])
    with pytest.raises(DataError, match=r"data\.group=patch would make groups beside those"):
        load_images("image_folder", root=root, group="patch")

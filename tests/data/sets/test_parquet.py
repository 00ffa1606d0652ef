"""Images in Arrow and Parquet files."""

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline.data import DataError, class_names, load_images, validate_request


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"data=parquet needs the extra `parquet`, .* pip install '\.\[parquet\]'"):
        validate_request("parquet", root=tmp_path)


def encoded(level: int, size: tuple[int, int] = (5, 4)) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, level).save(stream, "PNG")
    return stream.getvalue()


def table(labels: list, names: list[str] | None = None, levels: list[int] | None = None, plain: bool = False):
    pyarrow = pytest.importorskip("pyarrow")
    contents = [encoded(level) for level in levels or range(len(labels))]
    images = contents if plain else [{"bytes": content, "path": None} for content in contents]
    made = pyarrow.table({"image": images, "label": labels})
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return made


def save(path: Path, made) -> None:
    import pyarrow
    from pyarrow import ipc, parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(made, path, row_group_size=4)
        return
    opened = ipc.new_file if "whole" in path.name else ipc.new_stream
    with pyarrow.OSFile(str(path), "wb") as file, opened(file, made.schema) as writer:
        writer.write_table(made)


def example_root(folder: Path) -> Path:
    """A file of forty images of two classes; the tests of all sets use it, too."""
    save(folder / "images.parquet", table([0, 1] * 20))
    return folder


def test_splits_are_told_by_the_names_of_files_and_classes_by_the_features(tmp_path):
    for number in range(2):
        levels = list(range(10 * number, 10 * number + 10))
        save(tmp_path / f"data/train-0000{number}-of-00002.parquet", table([0, 1] * 5, ["owl", "cat"], levels))
    save(tmp_path / "data/test-00000-of-00001.parquet", table([1, 0], ["owl", "cat"], [51, 50]))
    data = load_images("parquet", root=tmp_path, classes=["cat", "owl"])
    assert data.classes == ("cat", "owl") and data.image_shape == (1, 4, 5)
    assert data.train.images[:, 0, 0, 0].tolist() == list(range(20)) and data.train.labels.tolist() == [1, 0] * 10
    assert data.test.images[:, 0, 0, 0].tolist() == [51, 50] and data.test.labels.tolist() == [0, 1]
    few = load_images("parquet", root=tmp_path, samples_per_class=3)
    assert (few.train.images[:, 0, 0, 0] % 2 == few.train.labels).all() and len(few.train) == 6


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("cifar10-train.arrow", "cifar10-test.arrow"),  # as `datasets` caches them
        ("x-y-train-00000-of-00002.parquet", "x-y-test.parquet"),
        ("own_train.parquet", "own_valid.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
    ],
)
def test_a_split_may_end_the_name_of_a_file_or_be_its_folder(tmp_path, train, test):
    save(tmp_path / train, table([0, 1] * 4, levels=list(range(8))))
    save(tmp_path / test, table([1, 0], levels=[51, 50]))
    data = load_images("parquet", root=tmp_path)
    assert len(data.train) == 8 and data.test.images[:, 0, 0, 0].tolist() == [51, 50]


def test_names_of_classes_must_be_those_of_all_files_and_every_split_has_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    save(tmp_path / "a/train-0.parquet", table([0, 1] * 4, ["owl", "cat"]))
    save(tmp_path / "a/train-1.parquet", table([0, 1] * 4, ["cat", "owl"]))
    with pytest.raises(DataError, match=r"train-1\.parquet tells other class names \(cat, owl\); allowed: .* owl, cat"):
        validate_request("parquet", root=tmp_path / "a")
    empty = pyarrow.table({"image": pyarrow.array([], pyarrow.binary()), "label": pyarrow.array([], pyarrow.int64())})
    save(tmp_path / "b/train.parquet", empty)
    save(tmp_path / "c/train.parquet", table([0, 1] * 4))
    save(tmp_path / "c/test.parquet", empty)
    for folder in "bc":
        with pytest.raises(DataError, match="holds no row"):
            load_images("parquet", root=tmp_path / folder)


def test_an_image_may_be_a_path_beside_the_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    images = [{"bytes": None, "path": f"{level}.png"} for level in range(8)]
    save(tmp_path / "train.parquet", pyarrow.table({"image": images, "label": [0, 1] * 4}))
    with pytest.raises(DataError, match=r"row \d: data\.image_column=image names .*\.png, which is not there"):
        load_images("parquet", root=tmp_path)
    for level in range(8):
        (tmp_path / f"{level}.png").write_bytes(encoded(level))
    assert len(load_images("parquet", root=tmp_path).train) == 6


@pytest.mark.parametrize("name", ["train/data-00000-of-00001.arrow", "train/whole.arrow", "train.parquet"])
def test_arrow_streams_and_files_are_read_with_labels_that_are_text(tmp_path, name):
    save(tmp_path / name, table(["b", "a", "b", "a"], plain=True))
    data = load_images("parquet", root=tmp_path)
    assert class_names("parquet", tmp_path) == data.classes == ("a", "b")
    assert len(data.train) == len(data.test) == 2


def test_columns_may_have_other_names(tmp_path):
    save(tmp_path / "train.parquet", table([7, 12] * 4).rename_columns(["img", "fine_label"]))
    asked = {"root": tmp_path, "image_column": "img", "label_column": "fine_label"}
    assert load_images("parquet", **asked).classes == ("7", "12")
    with pytest.raises(DataError, match=r"data\.image_column=image is no column of .*; allowed: img, fine_label"):
        validate_request("parquet", root=tmp_path)


def test_what_cannot_be_used_is_refused_with_its_file_and_row(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"holds no file that ends in \.parquet or \.arrow"):
        validate_request("parquet", root=tmp_path)
    save(tmp_path / "a/train.parquet", table([0, 1, None, 1]))
    with pytest.raises(DataError, match=r"train\.parquet, row 2: the label is None; allowed: an integer >= 0, or text"):
        load_images("parquet", root=tmp_path / "a")
    save(tmp_path / "b/train.parquet", table([0, 1, 2], ["x", "y"]))
    with pytest.raises(DataError, match=r"row 2: the label 2 is no class; allowed: x, y"):
        load_images("parquet", root=tmp_path / "b")
    save(tmp_path / "c/train.parquet", pyarrow.table({"image": [b"no image"] * 8, "label": [0, 1] * 4}))
    with pytest.raises(
        DataError, match=r"8 image file\(s\) that cannot be read: .*train\.parquet, row 0 \(cannot iden"
    ):
        load_images("parquet", root=tmp_path / "c")
    save(tmp_path / "d/train.parquet", pyarrow.table({"image": [[1, 2]] * 8, "label": [0, 1] * 4}))
    with pytest.raises(DataError, match=r"row 0: data\.image_column=image holds no encoded image"):
        load_images("parquet", root=tmp_path / "d")
    save(tmp_path / "e/train.parquet", table([0, 1] * 4))
    save(tmp_path / "e/more.parquet", table([0, 1] * 4))
    with pytest.raises(DataError, match=r"cannot be told whether more\.parquet is for training or for testing"):
        validate_request("parquet", root=tmp_path / "e")
    (tmp_path / "f").mkdir()
    (tmp_path / "f/train.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match=r"train\.parquet cannot be read \("):
        validate_request("parquet", root=tmp_path / "f")

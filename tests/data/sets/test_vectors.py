"""Rows and labels from files of one's own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.data import DataError, class_names, load_images, validate_request

ROWS = np.arange(60.0).reshape(20, 3)
LABELS = np.repeat([0, 1], 10)


def example_root(folder: Path) -> Path:
    """A file of forty rows in two classes with its labels; the tests of all sets use it, too."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "rows.npy", np.arange(120.0).reshape(40, 3))
    np.save(folder / "labels.npy", np.repeat([0, 1], 20))
    return folder / "rows.npy"


def saved(folder: Path, rows=ROWS, labels=LABELS) -> Path:
    np.save(folder / "rows.npy", rows)
    np.save(folder / "labels.npy", labels)
    return folder / "rows.npy"


def test_rows_of_a_npy_file_get_the_labels_beside_it(tmp_path):
    data = load_images("vectors", root=saved(tmp_path), test_fraction=0.3)
    assert data.kind == "vectors" and data.image_shape == (3, 1, 1) and data.classes == ("0", "1")
    both = torch.cat([data.train.images, data.test.images]).flatten(1)
    assert sorted(both.tolist()) == ROWS.tolist()
    assert data.train.labels.bincount().tolist() == [7, 7] and data.test.labels.bincount().tolist() == [3, 3]
    for split in (data.train, data.test):
        assert torch.equal(split.labels, (split.images[:, 0, 0, 0] >= 30).long())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_a_safetensors_file_may_hold_both(tmp_path, dtype):
    path = tmp_path / "all.safetensors"
    save_file({"features": torch.from_numpy(ROWS).to(dtype), "labels": torch.from_numpy(LABELS)}, path)
    for where in ({"root": path}, {"root": tmp_path, "file": "all.safetensors"}):
        data = load_images("vectors", **where)
        assert len(data.train) + len(data.test) == 20 and data.train.images.dtype == torch.float32


def test_classes_are_named_by_numbers_in_their_order_or_by_text(tmp_path):
    numbered = saved(tmp_path, labels=np.repeat([10, 9, 100, 9], 5).astype(np.float32))
    assert class_names("vectors", numbered) == ("9", "10", "100")
    np.save(tmp_path / "words.npy", np.repeat(["dog", "cat"], 10))
    data = load_images("vectors", root=numbered, labels="words.npy", classes=["dog", "cat"])
    assert data.classes == ("dog", "cat") and data.train.images[data.train.labels == 0].max() < 30


def test_test_rows_may_have_files_of_their_own(tmp_path):
    root = saved(tmp_path).parent
    np.save(root / "more.npy", ROWS[:4] + 0.5)
    np.save(root / "more_labels.npy", np.array([1, 0, 1, 1]))
    data = load_images("vectors", root=root, file="rows.npy", test_file="more.npy")
    assert len(data.train) == 20 and data.test.labels.tolist() == [1, 0, 1, 1]
    assert data.test.images.flatten(1).tolist() == (ROWS[:4] + 0.5).tolist()


def broken(place: int, value: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[place, 1] = value
    return rows


BAD_FILES = {
    "nan": ({"rows": broken(4, np.nan)}, r"rows\.npy: 1 row\(s\) hold numbers .* first row 4 \(nan\)"),
    "infinite": ({"rows": broken(2, -np.inf)}, r"first row 2 \(-inf\)"),
    "too large": ({"rows": broken(0, 1e39)}, r"beyond float32, first row 0 \(1e\+39\)"),
    "one dimension": ({"rows": ROWS[:, 0]}, r"holds an array of shape \(20,\); allowed: rows \(N, d\)"),
    "images": ({"rows": ROWS.reshape(20, 3, 1, 1)}, r"shape \(20, 3, 1, 1\); allowed: rows"),
    "nothing": ({"rows": ROWS[:0], "labels": LABELS[:0]}, r"labels\.npy holds an array of shape \(0,\)"),
    "complex": ({"rows": ROWS + 0j}, r"holds complex128 values; allowed: real numbers"),
    "fewer labels": ({"labels": LABELS[1:]}, r"holds 20 rows, but .*labels\.npy 19 labels"),
    "half a label": ({"labels": LABELS + 0.5}, r"the label of row 0 is 0\.5; allowed: whole numbers >= 0"),
    "negative": ({"labels": LABELS - 1}, r"the label of row 0 is -1; allowed: whole numbers >= 0"),
    "nan label": ({"labels": np.full(20, np.nan)}, r"the label of row 0 is nan"),
    "one-hot": ({"labels": np.eye(2)[LABELS]}, r"labels\.npy holds an array of shape \(20, 2\)"),
    "one class": ({"labels": np.zeros(20)}, r"has 1 class; allowed: two or more"),
    "lonely": ({"labels": np.r_[LABELS[:-1], 2]}, r"class '2', which has 1 image"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_used_is_named_in_one_sentence(tmp_path, name):
    contents, message = BAD_FILES[name]
    with pytest.raises(DataError, match=message) as error:
        load_images("vectors", root=saved(tmp_path, **contents))
    assert "\n" not in str(error.value)


def test_damaged_files_are_refused_and_nothing_is_unpickled(tmp_path):
    root = saved(tmp_path)
    root.write_bytes(root.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"rows\.npy cannot be read \("):
        load_images("vectors", root=root)
    np.save(root, np.array([{"a": 1}] * 20, dtype=object))
    with pytest.raises(DataError, match=r"rows\.npy cannot be read \(.*pickle"):
        load_images("vectors", root=root)
    (tmp_path / "x.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(DataError, match=r"x\.safetensors cannot be read \("):
        load_images("vectors", root=tmp_path / "x.safetensors")


def test_names_that_lead_nowhere_are_refused_beforehand(tmp_path):
    root = saved(tmp_path).parent
    save_file({"a": torch.ones(2, 2), "b": torch.ones(2, 2)}, root / "two.safetensors")
    save_file({"rows": torch.ones(4, 2)}, root / "alone.safetensors")
    np.save(root / "none_labels.npy", np.zeros(0, dtype=np.int64))
    np.save(root / "wide.npy", np.ones((4, 5)))
    np.save(root / "wide_labels.npy", np.arange(4) % 2)
    np.save(root / "other_labels.npy", np.array([0, 7, 1, 1]))
    (root / "table.csv").touch()
    for options, message in (
        ({"root": root}, r"data\.file=null, but .* is a folder; allowed: .*\.npy"),
        ({"root": root, "file": "none.npy"}, r"data\.file: the file .*none\.npy is missing"),
        ({"root": root, "file": "table.csv"}, r"table\.csv is no \.npy or \.safetensors file"),
        ({"root": root / "rows.npy", "file": "rows.npy"}, r"data\.file=rows\.npy does not go with data\.root"),
        ({"root": root / "rows.npy", "labels": "none.npy"}, r"data\.labels: the file .*none\.npy is missing"),
        ({"root": root / "rows.npy", "test_labels": "labels.npy"}, r"data\.test_labels=labels\.npy without"),
        ({"root": root / "rows.npy", "test_file": "rows.npy"}, r"data\.test_file=rows\.npy .* not files of their own"),
        ({"root": root / "two.safetensors"}, r"two\.safetensors holds no tensor called labels \(a, b\); allowed"),
        ({"root": root / "alone.safetensors"}, r"alone\.safetensors holds no tensor called labels \(rows\); allowed"),
        ({"root": root / "rows.npy", "labels": "none_labels.npy"}, r"none_labels\.npy holds an array of shape \(0,\)"),
    ):
        for call in (validate_request, load_images):
            with pytest.raises(DataError, match=message):
                call("vectors", **options)
    with pytest.raises(DataError, match=r"wide\.npy has rows of 5 numbers, but .*rows\.npy of 3"):
        load_images("vectors", root=root / "rows.npy", test_file="wide.npy")
    with pytest.raises(DataError, match=r"the label 7 of row 1 is no class of the training rows; allowed: 0, 1"):
        load_images("vectors", root=root / "rows.npy", test_file="wide.npy", test_labels="other_labels.npy")
    (root / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"no rows_labels\.npy and no labels\.npy beside"):
        validate_request("vectors", root=root / "rows.npy")

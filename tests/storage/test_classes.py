"""Values of each class: rows of the record where classes are few, a table of its own where they are many."""

import math

import numpy as np
import pytest
import torch

from pipeline.storage.classes import LEFT_OUT, ClassTable, read_classes
from pipeline.storage.reading import Unreadable
from pipeline.storage.record import Record, read_record
from pipeline.storage.stages import StageCache

MANY = 21
NAMES = tuple(["nan", "", 'a "b", c', *(f"class {number}" for number in range(3, MANY))])
FILE = "stages/a.safetensors"


def add(record, steps, classes=MANY, seeds=(0, 1)) -> Record:
    for step in steps:
        values = torch.arange(len(seeds) * classes, dtype=torch.float64).reshape(len(seeds), classes) / 7 + step
        values[0, 1], values[0, 2] = math.nan, math.nan
        metrics = {"dnc1": torch.ones(len(seeds)), "samples/class=": torch.full_like(values, 3)}
        metrics |= {"cos_intra/class=": values.tolist(), "test_cos_intra/class=": values}
        reasons = {"cos_intra/class=1": "one row", "dnc1": "of the place"}
        record.add("backbone", step, list(seeds), metrics, layer="a", tap="post", reasons=reasons)
    return record


def measured(folder, steps=(0, 5), classes=MANY) -> Record:
    return add(Record(folder, classes=ClassTable(names=NAMES)), steps, classes)


def test_a_table_has_a_line_for_each_class_of_the_last_measurement(tmp_path):
    record = measured(tmp_path)
    record.save()
    assert set(read_record(tmp_path).metric) == {"dnc1"}
    assert record.undefined.keys() == {("backbone", "a", "post", "dnc1")}
    table = read_classes(tmp_path)
    place = ["stage", "step", "seed", "layer", "tap", "class", "name"]
    assert list(table) == [*place, "samples", "cos_intra", "test_cos_intra", "undefined"]
    assert len(table) == 2 * MANY and set(table.step) == {5} and list(table.name[:MANY]) == list(NAMES)
    assert table["class"].tolist() == [*range(MANY)] * 2 and table.samples.dtype == "int64"
    known = np.arange(2 * MANY) / 7 + 5
    known[1:3] = math.nan
    np.testing.assert_array_equal(table.cos_intra, known)  # to the bit
    assert table.undefined[1] == f"cos_intra: one row; test_cos_intra: {LEFT_OUT}"
    assert table.undefined[2] == f"cos_intra, test_cos_intra: {LEFT_OUT}" and set(table.undefined[3:]) == {""}


def test_a_few_classes_are_rows_with_reasons(tmp_path):
    record = measured(tmp_path, classes=4)
    record.save()
    assert not (tmp_path / "classes.csv").exists()
    with pytest.raises(FileNotFoundError):
        read_classes(tmp_path)
    rows = read_record(tmp_path)
    own = rows[rows.metric == "cos_intra/class=class 3"]
    assert own.step.tolist() == [0, 0, 5, 5] and own.value.tolist() == pytest.approx([3 / 7, 1, 38 / 7, 6])
    assert record.undefined["backbone", "a", "post", "cos_intra/class="] == "one row"
    assert record.undefined["backbone", "a", "post", 'test_cos_intra/class=a "b", c'] == LEFT_OUT


def test_a_stage_that_is_found_brings_its_table_along_and_no_line_twice(tmp_path):
    def attempt(make):
        record = Record(tmp_path, classes=ClassTable(names=NAMES))
        cache = StageCache(tmp_path, record)
        found = cache.load_or_run(FILE, "key", lambda: make(record))
        record.save()
        return found, (tmp_path / "classes.csv").read_bytes(), record, cache

    def stage(record):
        add(record, (0, 5))
        return {"weights": torch.ones(2)}

    _, first, *_ = attempt(stage)
    found, again, record, cache = attempt(lambda _: pytest.fail("made again"))
    assert again == first and found.keys() == {"weights"}
    half = cache.partial("stages/b.safetensors", "key")
    add(record, (7,))
    half.save({}, {"done": 1})
    other = Record(tmp_path)
    assert StageCache(tmp_path, other).partial("stages/b.safetensors", "key").load() == ({}, {"done": 1})
    assert {part.step for part in other.classes.parts.values()} == {7} and len(other.classes.parts) == 2


def test_what_is_measured_of_no_class_leaves_no_table_of_before(tmp_path):
    measured(tmp_path).save()
    Record(tmp_path).save()
    assert not (tmp_path / "classes.csv").exists()


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "stage,step\n"])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    (tmp_path / "classes.csv").write_text(content)
    with pytest.raises(Unreadable, match=r"classes\.csv is unreadable: "):
        read_classes(tmp_path)

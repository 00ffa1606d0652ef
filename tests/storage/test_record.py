"""The record: what is written is what was measured, whole or not at all."""

import json
import os

import numpy as np
import pytest
import torch

from pipeline.runtime.environment import environment
from pipeline.runtime.files import atomic
from pipeline.storage.record import Record, read_record, read_summary, write_summary


def test_rows_come_back_from_the_file_to_the_last_digit(tmp_path):
    record = Record(tmp_path)
    values = [0.1 + 0.2, 1e-300, float("nan"), float("inf")]
    record.add("head", 3, [0, 1, 2, 3], {"dnc1": torch.tensor(values, dtype=torch.float64)}, layer="2", tap="post")
    record.add("backbone", 0, [0], {"train_loss": [1 / 3]})
    record.save()
    header = (tmp_path / "record.csv").read_text().splitlines()[0]
    assert header == "stage,step,seed,layer,tap,metric,value"
    frame = read_record(tmp_path)
    np.testing.assert_array_equal(frame.value.to_numpy(), np.array([*values, 1 / 3]))
    assert frame.layer.tolist() == ["2"] * 4 + [""]
    assert frame.seed.tolist() == [0, 1, 2, 3, 0]


def test_final_layers_are_those_of_the_last_step_with_reasons_for_what_is_undefined(tmp_path):
    record = Record(tmp_path)
    record.add("head", 0, [5, 6], {"dnc1": [1.0, 2.0]}, layer="1", tap="pre", reasons={"dnc1": "an old reason"})
    record.add("head", 9, [5, 6], {"dnc1": [3.0, 4.0]}, layer="1", tap="pre")
    record.add(
        "head", 9, [5, 6], {"dnc1": [0.5, float("nan")]}, layer="2", tap="post", reasons={"dnc1": "means coincide"}
    )
    first, second = record.final_layers("head", [5, 6])
    assert first == {"layer": 1, "tap": "pre", "dnc3": None, "dnc1": [3.0, 4.0]}
    assert second["dnc1"] == [0.5, None] and second["undefined"] == {"dnc1": "means coincide"}
    assert record.final_layers("backbone", [5]) == []


def test_listeners_hear_every_row_once(tmp_path):
    heard = []
    record = Record(tmp_path, listeners=[heard.extend])
    record.add("head", 1, [0], {"a": [1.0], "b": [2.0]})
    record.add("head", 2, [0], {"a": [3.0]})
    assert heard == record.rows


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["file.txt"] and target.read_text() == "old"


def test_summaries_are_strict_json(tmp_path):
    write_summary(tmp_path, {"value": 1.5})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"value": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        write_summary(tmp_path, {"value": float("nan")})
    assert read_summary(tmp_path) == {"value": 1.5}


def test_an_unreadable_summary_reads_as_none(tmp_path):
    assert read_summary(tmp_path) is None
    (tmp_path / "summary.json").write_text('{"status": "comp')
    assert read_summary(tmp_path) is None


def test_layers_are_numbers_in_stages_of_a_head_and_names_elsewhere(tmp_path):
    record = Record(tmp_path, numbered=frozenset({"probe"}))
    for stage in ("probe", "backbone"):
        record.add(stage, 0, [0], {"dnc1": [1.0]}, layer="1", tap="post")
    assert record.final_layers("probe", [0])[0]["layer"] == 1
    assert record.final_layers("backbone", [0])[0]["layer"] == "1"


def test_the_last_values_of_a_whole_network_are_those_of_its_last_step(tmp_path):
    record = Record(tmp_path)
    assert record.last("backbone", "train_accuracy") is None
    for step in (0, 3):
        record.add("backbone", step, [0, 1], {"train_accuracy": [0.5 + step / 10, float("nan")]})
        record.add("backbone", step, [0, 1], {"train_accuracy": [9.0, 9.0]}, layer="1", tap="post")
    assert record.last("backbone", "train_accuracy") == [0.8, None]


def test_the_environment_names_versions_and_device():
    facts = environment("cpu")
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["device"].startswith("cpu")

"""Whether collapse is attainable on the rows that a run draws, and what the collapsed network makes of test rows."""

import pytest
from computing import computed

from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_summary


def of(record, metric, layer=""):
    return record[(record.metric == metric) & (record.layer.fillna("") == layer)].value.tolist()


def test_too_few_coordinates_are_never_enough_and_as_many_as_rows_always(tmp_path):
    few = computed("shallow", tmp_path / "few", {"data.dim": 5, "protocol.repeats": 3})
    assert of(few, "attainable") == [0, 0, 0] and min(of(few, "excess", "class_0")) > 0
    many = computed("shallow", tmp_path / "many", {"data.dim": 12, "protocol.repeats": 3})
    assert of(many, "attainable") == [1, 1, 1] and max(of(many, "excess", "class_1")) <= 1e-9
    assert read_summary(tmp_path / "many")["title"] == "collapse is attainable on 3 of 3 data sets"


def test_all_classes_are_attainable_where_each_is(tmp_path):
    record = computed("shallow", tmp_path, {"data.dim": 8, "data.snr": 0.0, "protocol.repeats": 12})
    first, second = of(record, "attainable", "class_0"), of(record, "attainable", "class_1")
    assert of(record, "attainable") == [float(a and b) for a, b in zip(first, second, strict=True)]
    assert 0 < sum(first) < 12


def test_the_collapsed_network_generalises_by_the_signal_and_is_undefined_on_dependent_rows(tmp_path):
    wide = {"data.dim": 20, "data.test": 200, "protocol.repeats": 3}
    chance = of(computed("shallow", tmp_path / "chance", {**wide, "data.snr": 0.0}), "accuracy")
    assert all(0.4 < value < 0.6 for value in chance)
    assert min(of(computed("shallow", tmp_path / "signal", {**wide, "data.snr": 12.0}), "accuracy")) > 0.99
    few = computed("shallow", tmp_path / "few", {"data.dim": 5})
    assert few[few.metric == "accuracy"].value.isna().all()


def test_networks_are_trained_beside_and_their_best_is_told(tmp_path):
    how = {"data.dim": 14, "protocol.hidden": [6], "protocol.starts": 3, "protocol.iterations": 120}
    record = computed("shallow", tmp_path, how | {"head.feature_decay": 5e-3, "data.snr": 4.0})
    found = record[record.layer == "network"].set_index("metric").value
    assert found["gap"] < 1e-3 and found["dnc1"] < 1e-3 and 0 < found["reached"] <= 1 and 0.5 < found["accuracy"] <= 1
    assert record[record.metric == "rank"].value.tolist() == [12]
    for value, why in (([0], "are no widths of layers"), ("wide", "are no widths of layers"), ([4], "decays > 0")):
        changed = {"protocol.hidden": value, "head.feature_decay": 0.0 if value == [4] else 1e-3}
        with pytest.raises(ConfigError, match=why):
            computed("shallow", tmp_path / "refused", changed)

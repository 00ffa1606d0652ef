"""Lines and final values are the record's own: medians over seeds between the smallest and the largest."""

import csv
import math
import statistics
from collections import defaultdict

import pandas as pd
import pytest

from pipeline.storage.record import Row
from pipeline.storage.summary import RunSummary
from pipeline.views.html.runs import LocalRun
from pipeline.views.html.series import Line, final, lines
from pipeline.views.shown import place_names


def frame(*rows) -> pd.DataFrame:
    return pd.DataFrame([Row(*row) for row in rows], columns=Row._fields)


def test_every_line_of_a_real_record_is_the_median_over_its_seeds(digits_run):
    wanted = defaultdict(list)
    with open(digits_run / "record.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["stage"] == "head" and row["metric"] == "dnc1":
                wanted[row["layer"], row["tap"], int(row["step"])].append(float(row["value"]))
    table, _ = LocalRun(digits_run, "").record()
    found = {
        (line.layer, line.tap, step): (middle, low, high)
        for line in lines(table, "head", "dnc1")
        for step, middle, low, high in zip(line.steps, line.middle, line.low, line.high, strict=True)
    }
    assert found.keys() == {key for key in wanted if key[2] > 0} and len({key[:2] for key in found}) == 5
    for key, numbers in found.items():
        values = wanted[key]
        assert numbers == pytest.approx((statistics.median(values), min(values), max(values)), rel=5e-6)


def test_what_a_logarithmic_axis_cannot_show_is_left_out():
    table = frame(
        ("head", 0, 0, "2", "post", "dnc1", 5.0),
        ("head", 1, 0, "2", "post", "dnc1", -1.0),
        ("head", 1, 1, "2", "post", "dnc1", 3.0),
        ("head", 2, 0, "2", "post", "dnc1", math.nan),
        ("head", 2, 1, "2", "post", "dnc1", math.inf),
        ("head", 3, 0, "2", "post", "dnc1", 2.0),
        ("head", 3, 1, "2", "post", "dnc1", 4.0),
        ("head", 3, 0, "3", "post", "dnc1", 0.0),
    )
    (line,) = lines(table, "head", "dnc1")
    assert line == Line("2", "post", [1, 3], [3.0, 3.0], [3.0, 2.0], [3.0, 4.0]) and line.spread


def test_final_values_are_of_the_last_step_of_each_stage_and_backbone_comes_first():
    table = frame(
        ("head", 9, 0, "1", "pre", "dnc1", 7.0),
        ("head", 10, 0, "1", "pre", "dnc1", 1.0),
        ("head", 10, 1, "1", "pre", "dnc1", 3.0),
        ("head", 10, 2, "1", "pre", "dnc1", 1.5),
        ("head", 10, 0, "2", "post", "dnc1", math.nan),
        ("dufm", 10, 0, "1", "pre", "dnc1", 9.0),
        ("backbone", 2, 0, "block", "post", "dnc1", 5.0),
    )
    ends = final(table, "dnc1", place_names(RunSummary({}), table))
    places = [(place.stage, place.layer, place.middle, place.low, place.high) for place in ends]
    assert places == [
        ("backbone", "block", 5.0, 5.0, 5.0),
        ("head", "1", 1.5, 1.0, 3.0),
        ("head", "2", None, None, None),
    ]
    assert [place.name for place in ends] == ["block", "layer 1", "layer 2"]


def test_a_linear_axis_shows_what_a_logarithmic_one_cannot():
    table = frame(("stage", 1, 0, "a", "post", "m", 0.0), ("stage", 2, 0, "a", "post", "m", -2.0))
    assert list(lines(table, "stage", "m")) == []
    assert [line.middle for line in lines(table, "stage", "m", logarithmic=False)] == [[0.0, -2.0]]

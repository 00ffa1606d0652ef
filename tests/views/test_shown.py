"""Figures, reports and dashboards ask one place what is shown, and what it is called."""

import handmade
import pandas as pd
import pytest

from pipeline.metrics.registry import metrics
from pipeline.storage.record import Row, read_record
from pipeline.storage.summary import RunSummary, read
from pipeline.views.shown import MOST_PANELS, families, leading_stage, panels, place_names, stages_at_the_end


def frame(*rows) -> pd.DataFrame:
    return pd.DataFrame([Row(*row) for row in rows], columns=Row._fields)


def of_layers(*names: str, value: float = 1.0) -> pd.DataFrame:
    return frame(*(("head", 1, 0, "1", "pre", name, value) for name in names))


def test_the_registrys_default_panels_are_drawn_in_its_order():
    shown = panels(RunSummary({}), of_layers(*reversed(list(metrics()))))
    assert [metric.name for metric in shown] == [name for name, metric in metrics().items() if metric.panel]


def test_without_a_default_panel_the_first_others_are_drawn_and_no_twin_of_the_test_split():
    names = [f"m{index}" for index in range(MOST_PANELS + 3)]
    shown = panels(RunSummary({"metrics": {}}), of_layers("test_m0", *names))
    assert [metric.name for metric in shown] == names[:MOST_PANELS]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_metric_without_a_value_that_its_axis_can_show_has_no_panel(value):
    assert panels(RunSummary({"metrics": {}}), of_layers("m", value=value)) == []


def test_intermediate_stages_are_left_out_unless_there_is_nothing_else():
    rows = [(stage, 1, 0, "1", "pre", "dnc1", 1.0) for stage in ("dufm", "head", "backbone")]
    found = RunSummary({})
    assert [stage.name for stage in stages_at_the_end(found, frame(*rows))] == ["backbone", "head"]
    assert [stage.name for stage in stages_at_the_end(found, frame(rows[0]))] == ["dufm"]


def test_the_head_leads_and_without_one_the_last_stage_with_layers(tmp_path):
    rows = [(stage, 1, 0, "1", "pre", "dnc1", 1.0) for stage in ("head", "backbone")]
    assert leading_stage(RunSummary({}), frame(*rows)).name == "head"
    folder = handmade.of_two_stages(tmp_path / "run")
    assert leading_stage(read(folder), read_record(folder)).title == "Pruning"
    assert leading_stage(RunSummary({}), frame(("walk", 1, 0, "", "", "loss", 1.0))) is None


def test_layers_are_called_by_name_or_number_and_by_their_stage_if_that_is_needed_to_tell_them_apart():
    rows = [("backbone", 1, 0, "network.a", "post", "m", 1.0), ("head", 1, 0, "1", "pre", "m", 1.0)]
    assert list(place_names(RunSummary({}), frame(*rows)).values()) == ["a", "layer 1"]
    again = [*rows, ("later", 1, 0, "network.a", "post", "m", 1.0)]
    names = place_names(RunSummary({}), frame(*again))
    assert list(names.values()) == ["Backbone: a", "layer 1", "Later: a"]


def test_both_splits_of_a_number_are_one_family():
    rows = [("s", 1, 0, "", "", name, 1.0) for name in ("train_loss", "train_accuracy", "test_loss", "speed")]
    assert families(frame(*rows, ("s", 1, 0, "a", "post", "m", 1.0))) == {
        "loss": ["train_loss", "test_loss"],
        "accuracy": ["train_accuracy"],
        "speed": ["speed"],
    }

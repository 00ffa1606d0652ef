"""The summary: every run's keys, the sections' parts, and which section speaks first."""

import io

import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from pipeline.config import Config
from pipeline.runs.inputs import Inputs
from pipeline.runs.outcome import Outcome
from pipeline.runs.report import ended_summary, final_summary, initial_summary, print_results
from pipeline.runs.run import Run
from pipeline.runs.sections import FactsSection, NetworkSection


@pytest.fixture
def run(tmp_path) -> Run:
    cfg = OmegaConf.structured(Config)
    names = {"data": "digits", "backbone": "mlp", "optimizer": "sgd", "logger": "none", "protocol": "dufm"}
    for group, name in names.items():
        OmegaConf.update(cfg, f"{group}.name", name)
    return Run.start(OmegaConf.to_object(cfg), Inputs(), tmp_path)


def test_the_last_section_speaks_first(run):
    first = FactsSection("first", {"a": 1.0, "b": 2.0}, {"a": "A", "b": "B"}, "one thing")
    last = FactsSection("last", {"b": 3.0}, {"b": "B, better"}, "another thing")
    summary = final_summary(run, Outcome((first, last)), None)
    assert summary["title"] == "another thing" and summary["sections"] == ["first", "last"]
    assert summary["headline"] == [
        {"name": "b", "label": "B, better", "value": 3.0},
        {"name": "a", "label": "A", "value": 1.0},
    ]


def test_values_become_plain_and_what_is_not_finite_null(run):
    facts = {"nested": {1: (float("inf"), torch.tensor([0.5, float("nan")]))}, "count": 3, "text": "yes"}
    summary = final_summary(run, Outcome((FactsSection("found", facts),)), None)
    assert summary["found"] == {"nested": {"1": [None, [0.5, None]]}, "count": 3, "text": "yes"}


def test_a_section_may_not_take_a_key_of_every_run(run):
    with pytest.raises(ValueError, match="the key status belongs to every run"):
        final_summary(run, Outcome((FactsSection("status", {}),)), None)


def test_a_run_whose_sections_have_no_title_is_named_after_its_protocol(run):
    assert "dufm" in final_summary(run, Outcome((FactsSection("found", {}),)), None)["title"]


def test_stages_are_those_with_rows_and_one_that_nobody_declared_comes_last(run):
    for stage in ("extra_look", "head"):
        run.record.add(stage, 0, [0], {"loss": [1.0]})
    summary = ended_summary(run, "interrupted", KeyboardInterrupt())
    assert list(summary["stages"]) == ["head", "extra_look"]
    assert summary["step_units"] == {"head": "gradient step", "extra_look": "step"}
    assert summary["status"] == "interrupted" and "title" not in summary


def test_a_stage_that_ended_before_its_planned_steps_stopped_early(run):
    run.planned_steps.update(head=10, backbone=5)
    run.record.add("head", 7, [0], {"loss": [1.0]})
    run.record.add("backbone", 5, [0], {"loss": [1.0]})
    run.record.add("other", 3, [0], {"loss": [1.0]})
    assert final_summary(run, Outcome(()), None)["stopped_early"] == {"head": 7}


def test_a_run_begins_with_what_it_uses(run):
    summary = initial_summary(run)
    assert summary["status"] == "running" and summary["uses"] == run.protocol.uses


def test_a_network_without_a_head_is_shown_as_a_table_of_its_places(run):
    for layer, value in (("block1", 0.5), ("block2", float("nan"))):
        run.record.add("backbone", 2, [0], {"dnc1": [value], "dnc2": [1.25]}, layer=layer, tap="post")
    run.record.add("backbone", 2, [0], {"train_accuracy": [0.75]})
    outcome = Outcome((NetworkSection(),))
    summary = final_summary(run, outcome, None)
    assert summary["title"] == "DNC2 1.25 at the last place of the network (block2)"
    assert [(entry["name"], entry["value"]) for entry in summary["headline"]] == [
        ("dnc1", None),
        ("dnc2", 1.25),
        ("train_accuracy", 0.75),
    ]
    said = io.StringIO()
    print_results(outcome, summary, Console(file=said, width=100))
    assert "block1" in said.getvalue() and "Accuracy (train): 75.00 %" in said.getvalue()

"""Every addition of docs/extending.md is its own files and nothing else, and shows up wherever it applies."""

import json
import re
from pathlib import Path

import pytest
from overlay import REPO, Overlay

from pipeline.storage.record import read_record

PAGE = REPO / "docs" / "extending.md"
SMALL = ["backbone.hidden=[8]", "backbone.epochs=2", "descent.steps=20", "descent.seeds=1", "head.depth=2"]
SMALL += ["descent.records_per_decade=1"]
SMALL += ["head.width=8", "logger=none", "record.figures=false", "trainer.threads=1", "-q"]
RUNS = {
    "images": ["data=stripes", "data.period=4"],
    "clouds": ["data=blobs", "protocol=trained_only"],
    "head": ["protocol=orthogonal", "protocol.num_classes=3", "protocol.samples_per_class=4", "head.loss=logistic"],
    "joint": ["protocol=end_to_end", "data.samples_per_class=20", "head.loss=logistic"],
}
METRICS = {"largest_cosine", "longest_feature", "row_ratio"}


def examples() -> dict[str, str]:
    """The files that the page shows: path -> text."""
    shown = re.findall(r"^\*\*`([^`]+)`\*\*\n\n```(?:python|yaml)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(shown) == len(dict(shown))
    return dict(shown)


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> Overlay:
    """The package with all files of the page, and a run of each kind."""
    overlay = Overlay(tmp_path_factory.mktemp("overlay"), examples())
    for name, arguments in RUNS.items():
        overlay.dnc(*SMALL, *arguments, f"hydra.run.dir=outputs/{name}")
    return overlay


def summary(added: Overlay, run: str) -> dict:
    return json.loads((added.folder / "outputs" / run / "summary.json").read_text())


def test_every_example_is_a_whole_new_file_of_python_or_settings():
    assert len(examples()) >= 14
    for path, text in examples().items():
        assert not (REPO / path).exists()
        if path.endswith(".py"):
            compile(text, path, "exec")


def test_metrics_stand_in_the_rows_of_every_layer(added):
    record = read_record(added.folder / "outputs" / "images")
    places = record[record.layer != ""].groupby(["stage", "layer", "tap"]).metric.agg(set)
    assert {stage for stage, *_ in places.index} == {"backbone", "head"}
    for (stage, layer, tap), metrics in places.items():
        assert {"largest_cosine", "longest_feature", "test_largest_cosine", "test_longest_feature"} <= metrics
        entered = stage == "head" and (layer == "1" or tap == "post")
        assert ("row_ratio" in metrics) == entered and "test_row_ratio" not in metrics


def test_metrics_stand_in_the_tracker_and_in_the_table_of_all(added):
    code = """
import torch
from pipeline import CollapseTracker

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
loader = [(torch.randn(20, 4), torch.arange(20) % 2)]
tracker = CollapseTracker(model, 2, ["1", "2:pre"], metrics=["largest_cosine", "longest_feature", "row_ratio"])
print(sorted(set(tracker.measure(loader).metric)))
"""
    assert added.python("-c", code).stdout.strip() == str(sorted(METRICS))
    table = added.python("-m", "pipeline.metrics").stdout
    assert all(name in table for name in METRICS) and "Norm of the longest row of the weight" in table


def test_help_lists_what_was_added(added):
    shown = added.dnc("--help", "data=stripes").stdout
    names = {"logistic", "blobs", "stripes", "data.period", "orthogonal", "trained_only", "two_widths"}
    assert [name for name in sorted(names | METRICS) if name not in shown] == []


def test_an_objective_is_fitted_and_judged_by_what_its_collapse_is(added):
    for run in ("head", "joint"):
        found = summary(added, run)
        assert found["problem"]["loss"] == "logistic" and "cdnv" in found["verdict"]["thresholds"]
        assert found["loss"]["optimum"] is None and found["loss"]["relative_gap"] is None


def test_data_sets_are_used_with_their_settings(added):
    assert summary(added, "clouds")["data"]["train"] == {"a": 30, "b": 30, "c": 30}
    assert summary(added, "images")["data"]["train"] == {"upright": 40, "lying": 40}
    refused = added.dnc("data=blobs", "data.period=3", check=False)
    assert refused.returncode == 2 and "data.period=3 belongs to data=stripes" in refused.stderr


def test_protocols_say_what_they_use(added):
    assert summary(added, "head")["uses"] == {"images": False, "network": False, "head": "descent"}
    assert summary(added, "clouds")["uses"] == {"images": True, "network": True, "head": None}
    assert "loss" not in summary(added, "clouds") and summary(added, "clouds")["status"] == "completed"


def test_all_runs_are_listed_compared_and_reported(added):
    listed = added.dnc("list").stdout
    assert listed.count("completed") == len(RUNS) and all(word in listed for word in ("orthogonal", "trained_only"))
    assert "data" in added.dnc("compare", "outputs/images", "outputs/clouds").stdout
    report = Path(added.dnc("report", "outputs").stdout.strip().splitlines()[-1])
    page = (added.folder / report).read_text()
    assert all(name in page for name in RUNS) and "stripes" in page


def test_a_study_runs_draws_and_judges(added):
    done = added.python("-m", "pipeline.studies", "two_widths", "--quick", "--out", "studied")
    assert "of 2 claims hold" in done.stdout
    out = added.folder / "studied" / "quick"
    assert {path.name for path in (out / "runs" / "two_widths").iterdir()} == {"width_8", "width_16"}
    assert (out / "figures" / "two_widths.png").is_file() and (out / "tables" / "two_widths_claims.csv").is_file()

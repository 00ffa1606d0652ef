"""A run whose descent is polished ends at the optimum, says so, and is the same when it is taken from its stage."""

from pathlib import Path

import pytest
import torch
from configurations import DUFM, perform
from safetensors.torch import load_file

from pipeline.dufm.descent import Descent
from pipeline.runs.polishing import polish_of, polish_rows, polished
from pipeline.storage.record import read_record, read_summary

SETTINGS = DUFM | {
    "head.depth": 2,
    "head.activation": "linear",
    "head.weight_decay": 5e-3,
    "head.feature_decay": 5e-3,
    "descent.steps": 300,
    "descent.lr": 0.5,
    "descent.polish": True,
}


def run(folder: Path, **settings: object) -> dict:
    perform(folder, SETTINGS | settings)
    return read_summary(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("polished") / "run"
    return folder, run(folder, **{"descent.seeds": 3})


def test_it_ends_at_a_value_of_theory_and_says_that_it_was_polished(finished):
    folder, summary = finished
    how, sits = summary["polish"], summary["sits_at"]
    assert how["from_step"] == 300 and len(how["iterations"]) == 3 and max(how["gradient_norm"]) < 1e-8
    assert all(abs(one["gap"]) < 1e-10 for one in sits)
    record = read_record(folder)
    last = record[record.step == 300 + max(how["iterations"])]
    assert sorted(last[last.metric == "gradient_norm"].value) == sorted(how["gradient_norm"])
    assert sorted(last[last.metric == "loss"].value) == pytest.approx(sorted(summary["loss"]["total"]), rel=1e-14)


def test_relu_layers_are_polished_after_heavy_ball_steps_that_the_summary_counts(tmp_path):
    summary = run(tmp_path / "run", **{"descent.seeds": 1, "head.activation": "relu", "descent.lr": 0.2})
    how, record = summary["polish"], read_record(tmp_path / "run")
    assert how["heavy_ball_steps"][0] > 0
    assert record.step.max() == 300 + how["iterations"][0] + how["heavy_ball_steps"][0]


def test_a_run_that_is_not_polished_does_not_speak_of_it(tmp_path):
    summary = run(tmp_path / "run", **{"descent.seeds": 1, "descent.polish": False})
    record = read_record(tmp_path / "run")
    assert "polish" not in summary and record.step.max() == 300 and "gradient_norm" not in set(record.metric)


def test_the_descent_before_it_is_that_of_a_run_without(finished, tmp_path):
    run(tmp_path / "plain", **{"descent.seeds": 3, "descent.polish": False})
    plain, with_polish = read_record(tmp_path / "plain"), read_record(finished[0])
    same = with_polish[with_polish.step <= 300].reset_index(drop=True)
    assert same.equals(plain.reset_index(drop=True))


def test_a_float32_descent_is_polished_in_float64(tmp_path):
    summary = run(tmp_path / "run", **{"descent.seeds": 1, "descent.precision": "float32"})
    assert summary["polish"]["gradient_norm"][0] < 1e-8 and abs(summary["sits_at"][0]["gap"]) < 1e-10
    assert load_file(tmp_path / "run" / "tensors.safetensors")["weights/1"].element_size() == 8


def test_seeds_that_diverged_are_left_as_they_are():
    source = torch.Generator().manual_seed(0)
    features, first, last = (torch.randn(2, *shape, generator=source).double() for shape in ((6, 4), (4, 4), (2, 4)))
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    rates = torch.tensor([0.1, 1e6], dtype=torch.float64)
    settings = {"num_classes": 2, "lr": rates, "weight_decay": 1e-2, "feature_decay": 1e-2, "activation": "linear"}
    descent = Descent(features, [first, last], labels, **settings)
    descent.advance(500)
    assert list(descent.diverged) == [1]
    end = polished(descent, "none", lambda iteration: None)
    assert end.diverged == descent.diverged and end.polish.iterations[1] is None and end.polish.gradient_norm[1] is None
    assert end.polish.gradient_norm[0] < 1e-9 and end.polish.from_step == 500
    assert torch.isfinite(end.point.features[0]).all() and end.point.features[1].isnan().all()
    assert polish_of(polish_rows(end.polish)[:, :3]).heavy_ball_steps == [0, None]  # as older versions have kept it
    assert torch.equal(
        polish_rows(polish_of(polish_rows(end.polish))).nan_to_num(-1), polish_rows(end.polish).nan_to_num(-1)
    )

"""A result says what the run's own files say."""

import math

import pandas as pd
import pytest
from study_results import descents_in, optimum

from pipeline.storage.record import COMPLETED, Row, write_summary
from pipeline.studies.engine.results import Result, ended
from pipeline.theory import DufmProblem


@pytest.fixture
def result(tmp_path) -> Result:
    return descents_in(tmp_path)([optimum(4), math.nan, 0.5], depth=4)


def test_seeds_and_problem_are_those_of_the_summary_whatever_the_configuration_asks_for(result):
    write_summary(result.folder, result.summary | {"seeds": [7, 8, 9]})
    again = Result(result.point, result.config, result.folder)
    assert again.seeds == [7, 8, 9]
    assert again.problem == DufmProblem(2, 50, 4, (5e-4,) * 4, 5e-4)
    assert [diagnosis.name for diagnosis in again.diagnoses] == ["global optimum", "diverged", "zero solution"]


def test_a_metric_is_found_at_every_place_that_has_it(result):
    assert list(result.final("dnc3")) == [(1, "pre"), (2, "post"), (3, "post"), (4, "post")]
    assert result.final("dnc3")[1, "pre"] == [0.7] * 3


def test_the_rows_of_a_metric_of_a_place_are_those_that_name_all_three(result):
    places = [("", ""), ("1", "pre"), ("1", "post"), ("1", "pre"), ("", "")]
    rows = [Row("backbone", step, 0, *places[step], "dnc1", float(step)) for step in range(5)]
    rows.append(Row("backbone", 5, 0, "1", "pre", "dnc2", 5.0))
    pd.DataFrame(rows, columns=Row._fields).to_csv(result.folder / "record.csv", index=False)
    again = Result(result.point, result.config, result.folder)
    found = {key: again.record.step.to_numpy()[rows].tolist() for key, rows in again.rows_of.items()}
    assert found == {
        **{("", "", "dnc1"): [0, 4], ("1", "pre", "dnc1"): [1, 3]},
        **{("1", "post", "dnc1"): [2], ("1", "pre", "dnc2"): [5]},
    }


@pytest.mark.parametrize("recorded", [[], [3, 4]])
def test_of_a_run_that_failed_every_seed_diverged(result, recorded):
    write_summary(result.folder, {"status": "failed", "error": "RunError: the head diverged for every seed"})
    rows = [Row("head", 0, seed, "", "", "loss", 1.0) for seed in recorded]
    pd.DataFrame(rows, columns=Row._fields).to_csv(result.folder / "record.csv", index=False)
    again = Result(result.point, result.config, result.folder)
    assert not again.completed and again.final("dnc1") == {}
    assert again.seeds == (recorded or [0, 1, 2]) and all(map(math.isnan, again.losses))
    assert {diagnosis.name for diagnosis in again.diagnoses} == {"diverged"}


def test_a_folder_without_a_summary_is_named(result):
    (result.folder / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match=str(result.folder)):
        _ = Result(result.point, result.config, result.folder).completed


def test_of_the_end_of_a_run_failures_and_lost_seeds_are_told():
    assert ended({"status": COMPLETED, "loss": {"total": [0.1, None, 0.2]}}) == " (1 of 3 seeds diverged)"
    assert ended({"status": "failed", "error": "RunError: every seed diverged"}) == " failed: every seed diverged"
    assert ended({"status": COMPLETED, "loss": {"total": [0.1]}}) == ended({"status": COMPLETED}) == ""

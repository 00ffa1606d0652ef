"""Runs of a study are composed as the command line composes them, and repeated only when they must be."""

from itertools import product
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import conf_folder
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import COMPLETED, read_summary, write_summary
from pipeline.studies.engine.catalogue import STUDIES
from pipeline.studies.engine.runs import Job, Point
from pipeline.studies.engine.study import CPU, FULL, QUICK, Grid

EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))
SHRUNK = [
    "descent.steps=20",
    "descent.seeds=2",
    "head.width=4",
    "protocol.num_features=4",
    "protocol.samples_per_class=3",
]
# Experiments on images that are not embedded run on those that are.
ON_DIGITS = ["data=digits", "data.classes=[0,1]", "data.samples_per_class=20", "backbone.epochs=1"]
DUFM = [name for name, study in STUDIES.items() if study.group == "dufm"]
REAL = [name for name, study in STUDIES.items() if study.group == "real"]


def shrunk_for(experiment: str) -> list[str]:
    return SHRUNK + ([] if experiment in DUFM else ON_DIGITS)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """The figure of a run takes longer than these runs, and has its own tests."""
    monkeypatch.setattr("pipeline.runs.execution.save_figure", lambda *arguments: [])


def plan(experiment: str, folder: Path, *overrides: str, point: Point | None = None) -> Job:
    return Job.plan(experiment, point or Point("here", ()), overrides, folder)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_file_runs_shrunk(experiment, tmp_path):
    job = plan(experiment, tmp_path / "run", *shrunk_for(experiment))
    job.perform()
    assert job.is_finished
    result = job.result()
    joint = result.summary["uses"]["head"] == "joint"
    assert result.completed and len(result.losses) == (1 if joint else 2)
    assert result.record[result.record.stage == "head"].step.max() == (1 if joint else 20)
    assert result.summary["problem"]["depth"] == job.config.head.depth


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_file_opens_with_what_it_shows(experiment):
    header = (conf_folder() / "experiment" / f"{experiment}.yaml").read_text().partition("defaults:")[0]
    for part in ("Shows:", "Expect:", "Command:", "Time:", "Provenance:"):
        assert part in header
    assert "(recall)" in header or "ours" in header


def test_every_study_has_an_experiment_file_and_points_with_names_of_their_own():
    for study in STUDIES.values():
        assert study.name in EXPERIMENTS
        for version in (FULL, CPU, QUICK):
            names = [point.name for point in study.chosen(version)]
            assert names and len(set(names)) == len(names)


@pytest.mark.parametrize("name", DUFM)
def test_the_points_of_a_study_differ_and_are_valid_configurations(name, tmp_path):
    points = STUDIES[name].points
    assert len({point.overrides for point in points}) == len(points)
    configs = [plan(name, tmp_path, point=point).config for point in (points[0], points[-1])]
    assert configs[0] != configs[1]
    assert all(config.protocol.name == "dufm" and config.head.inputs == "free" for config in configs)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("version", [FULL, CPU, QUICK])
def test_the_points_of_a_real_study_are_different_valid_configurations(name, version, tmp_path):
    points = STUDIES[name].chosen(version)
    chosen = points[:: max(1, len(points) // 12)]  # composing one takes a tenth of a second
    configs = [plan(name, tmp_path, *ON_DIGITS[:2], point=point).config for point in chosen]
    assert len({point.overrides for point in points}) == len(points)
    assert all(config.descent.seeds == (3 if config.protocol.name == "fixed_head" else 1) for config in configs)


def test_the_full_version_holds_every_combination_the_issue_of_e3_names():
    names = {point.name for point in STUDIES["e3"].points}
    for preset in (f"e3_{data}_{net}" for data in ("mnist01", "mnist49", "cifar10") for net in ("mlp", "resnet20")):
        for variant in (
            "end_to_end_dufm",
            "end_to_end_standard",
            "frozen_features",
            "fixed_head",
            "untrained_backbone",
        ):
            for depth, seed in product((3, 5), range(5)):
                assert f"{variant}-{preset}-depth_{depth}-seed_{seed}" in names
    assert len(names) == 6 * 5 * 2 * 5


def test_a_grid_is_the_multirun_of_its_points():
    grid = Grid("variant", {"experiment": ("a", "b"), "head.depth": (3, 5)}, ("protocol=dufm",))
    assert grid.multirun == ["--multirun", "protocol=dufm", "experiment=a,b", "head.depth=3,5"]
    points = grid.points(lambda values: (f"descent.steps={values['head.depth']}",))
    assert [point.name for point in points] == [
        "variant-a-depth_3",
        "variant-a-depth_5",
        "variant-b-depth_3",
        "variant-b-depth_5",
    ]
    assert points[1] == Point(
        "variant-a-depth_5", ("protocol=dufm", "experiment=a", "head.depth=5"), ("descent.steps=5",)
    )


def test_what_is_left_of_a_grid_is_the_smallest_that_holds_its_open_points():
    grid = Grid("g", {"head.depth": (3, 5), "seed": (0, 1, 2)})
    left = grid.without(lambda name: not name.endswith("seed_1"))
    assert left.axes == {"head.depth": (3, 5), "seed": (1,)}
    assert grid.without(lambda name: True) is None


@pytest.mark.parametrize("name", DUFM)
def test_the_quick_version_does_less(name, tmp_path):
    study = STUDIES[name]
    point = study.chosen(QUICK)[0]
    full = next(other for other in study.points if other.name == point.name)
    assert full.overrides == point.overrides and len(study.chosen(QUICK)) <= len(study.points)
    descents = [plan(name, tmp_path, point=each).config.descent for each in (full, point)]
    assert descents[1].steps < descents[0].steps and descents[1].seeds < descents[0].seeds


def test_the_command_line_wins_over_the_experiment_and_that_over_the_protocol(tmp_path):
    protocol = OmegaConf.load(conf_folder() / "protocol" / "dufm.yaml")
    config = plan("e1", tmp_path).config
    assert config.descent.steps == 100_000 != protocol.descent.steps
    assert plan("e1", tmp_path, "head.depth=5", "descent.steps=7").config.head.depth == 5
    assert plan("e1", tmp_path, "protocol=frozen_features").config.protocol.name == "frozen_features"


def test_features_are_as_wide_as_the_layers_in_the_width_sweep(tmp_path):
    assert plan("e2_width", tmp_path, "head.width=7").config.protocol.num_features == 7


def test_all_decays_are_one_in_the_decay_sweep(tmp_path):
    config = plan("e2_decay", tmp_path, "head.weight_decay=0.03").config
    assert config.head.feature_decay == 0.03 and config.weight_decays == (0.03, 0.03, 0.03)


@pytest.mark.parametrize("bad", ["head.depth=0", "head.widht=3", "descent.lr=abc", "head=linea"])
def test_a_bad_override_is_refused_before_anything_is_written(bad, tmp_path):
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException)):
        plan("e1", tmp_path / "run", bad)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def finished(tmp_path) -> Job:
    """A job whose folder says that it ran to the end."""
    job = plan("e1", tmp_path, *SHRUNK)
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(job.composed, tmp_path / ".hydra" / "config.yaml")
    write_summary(tmp_path, {"status": COMPLETED})
    return job


def test_a_completed_run_of_the_same_configuration_is_finished(finished):
    assert finished.is_finished


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_aborted_run_is_not_finished(finished, status):
    write_summary(finished.folder, {"status": status, "error": "KeyError: 'a bug'"})
    assert not finished.is_finished


def test_a_run_whose_seeds_all_diverged_is_a_result(finished):
    write_summary(finished.folder, {"status": "failed", "error": "RunError: the head diverged for every seed"})
    assert finished.is_finished
    result = finished.result()
    assert [diagnosis.name for diagnosis in result.diagnoses] == ["diverged", "diverged"]
    assert result.final("dnc1") == {}


@pytest.mark.parametrize("other", ["descent.steps=21", "head.depth=4", "seed=1"])
def test_a_run_of_another_configuration_is_not_finished(finished, other):
    assert not plan("e1", finished.folder, *SHRUNK, other).is_finished


def test_a_run_whose_configuration_is_lost_or_unreadable_is_not_finished(finished):
    path = finished.folder / ".hydra" / "config.yaml"
    path.write_text("head: {no_such_setting: 1}\n")
    assert not finished.is_finished
    path.unlink()
    assert not finished.is_finished


def test_a_closed_run_is_repeated_from_an_empty_folder(finished):
    (finished.folder / "leftover").touch()
    finished.perform()
    assert not (finished.folder / "leftover").exists()
    assert read_summary(finished.folder)["status"] == COMPLETED and finished.is_finished


def test_a_descent_that_diverges_for_every_seed_is_recorded_and_does_not_stop_the_study(tmp_path):
    job = plan("e1", tmp_path / "run", *SHRUNK, "descent.lr=1e6", "descent.steps=600")
    job.perform()
    assert not job.result().completed and job.is_finished


def test_an_aborted_run_of_the_same_configuration_goes_on_in_its_folder(finished):
    write_summary(finished.folder, {"status": "running"})
    (finished.folder / "kept").touch()
    finished.perform()
    assert (finished.folder / "kept").exists() and finished.is_finished


def test_a_closed_run_of_the_same_configuration_elsewhere_is_found(finished, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    open_job = plan("e1", elsewhere, *SHRUNK)
    assert open_job.found_in({finished.folder: finished.config}).folder == finished.folder
    assert open_job.found_in({finished.folder: plan("e1", tmp_path, "seed=9").config}).folder == elsewhere

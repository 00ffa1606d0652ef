"""Runs of a study are composed as the command line composes them, and repeated only when they must be."""

import json
import logging
import time
from pathlib import Path

import pytest
from commands import dnc
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import conf_folder
from pipeline.runs.protocols import protocol_named
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.lock import FolderLock
from pipeline.storage.record import COMPLETED, read_summary, write_summary
from pipeline.studies.engine.jobs import Job, Order, closed_runs
from pipeline.studies.engine.results import Point
from pipeline.studies.engine.study import studies

EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))
OF_NO_STUDY = [name for name in EXPERIMENTS if name not in studies()]
"""Points of the others are run where the figures of their studies are drawn (test_study.py)."""
SHRUNK = [
    "descent.steps=20",
    "descent.records_per_decade=1",
    "descent.seeds=2",
    "descent.polish=false",
    "head.width=4",
    "protocol.num_features=4",
    "protocol.samples_per_class=3",
]
FEW = ["data.samples_per_class=20", "backbone.epochs=1", "trainer.compile=off"]
OF_THEIR_OWN = {
    "leaky": ["backbone.epochs=2", "optimizer.iterations=2"],
    "mean_field": ["data=digits", "data.samples_per_class=20", "backbone.epochs=1"],
}
# Experiments on images that are not embedded run on those that are.
ON_DIGITS = ["data=digits", "data.classes=[0,1]", *FEW]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """The figure of a run takes longer than these runs, and has its own tests."""
    monkeypatch.setattr("pipeline.views.figures.save_figure", lambda *arguments: [])


def plan(experiment: str, folder: Path, *overrides: str, point: Point | None = None) -> Job:
    return Job.plan(experiment, point or Point("here", ()), overrides, folder)


def shrunk(experiment: str, folder: Path) -> Job:
    """Valid for any experiment: `data.download` spares it the files of data sets that this machine may not have."""
    found = plan(experiment, folder, "data.download=true", f"data.root={folder}")
    protocol = protocol_named(found.config.protocol.name)
    if protocol.name == "network":
        text = found.config.data.name == "pydoc"
        few = ["data.vocabulary=40", *FEW[1:]] if text else FEW  # a text has no samples of classes
        thin = ["backbone.width=16"] if found.config.backbone.name in ("rfm", "transformer") else []
        here = (
            ["data=digits", "data.classes=null", "data.standardize=none"]
            if found.config.data.name == "mnist_vectors"
            else []
        )
        return plan(experiment, folder, *here, *few, *thin)
    if not protocol.head:
        return plan(experiment, folder, "protocol.repeats=1", *OF_THEIR_OWN.get(protocol.name, ()))
    return plan(experiment, folder, *SHRUNK, *(ON_DIGITS if protocol.images else []))


@pytest.mark.parametrize("experiment", OF_NO_STUDY)
def test_an_experiment_without_a_study_runs_shrunk(experiment, tmp_path):
    job = shrunk(experiment, tmp_path / "run")
    assert job.order().perform() is None
    assert job.is_finished
    result = job.result()
    protocol = protocol_named(job.config.protocol.name)
    if not protocol.head:
        stages = {"backbone"} if protocol.name == "network" else set(protocol.stages)
        assert result.completed and set(result.record.stage) == stages
        return
    joint = result.summary["step_units"]["head"] == "epoch"
    assert result.completed and len(result.losses) == len(result.seeds) == (1 if joint else 2)
    assert result.record[result.record.stage == "head"].step.max() == (1 if joint else 20)
    assert result.summary["problem"]["depth"] == job.config.head.depth


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_file_opens_with_what_it_shows(experiment):
    header = (conf_folder() / "experiment" / f"{experiment}.yaml").read_text().partition("defaults:")[0]
    for part in ("Shows:", "Expect:", "Command:", "Time:", "Provenance:"):
        assert part in header
    assert "(recall)" in header or "ours" in header


def test_the_command_line_wins_over_the_experiment_and_that_over_the_protocol(tmp_path):
    protocol = OmegaConf.load(conf_folder() / "protocol" / "dufm.yaml")
    config = plan("e1", tmp_path).config
    assert config.descent.steps == 100_000 != protocol.descent.steps
    assert plan("e1", tmp_path, "head.depth=5", "descent.steps=7").config.head.depth == 5
    assert plan("e1", tmp_path, "protocol=frozen_features").config.protocol.name == "frozen_features"


def test_features_are_as_wide_as_the_layers_where_the_width_varies(tmp_path):
    assert plan("e2_width", tmp_path, "head.width=7").config.protocol.num_features == 7


def test_all_decays_are_one_where_the_decay_varies(tmp_path):
    config = plan("e2_decay", tmp_path, "head.weight_decay=0.03").config
    assert config.head.feature_decay == 0.03 and config.weight_decays == (0.03, 0.03, 0.03)


@pytest.mark.parametrize("bad", ["head.depth=-1", "head.widht=3", "descent.lr=abc", "head=linea"])
def test_a_bad_override_is_refused_before_anything_is_written(bad, tmp_path):
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException)):
        plan("e1", tmp_path / "run", bad)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def finished(tmp_path) -> Job:
    """A job whose folder says that it ran to the end."""
    job = plan("e1", tmp_path / "run", *SHRUNK)
    (job.folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(job.composed, job.folder / ".hydra" / "config.yaml")
    write_summary(job.folder, {"status": COMPLETED})
    return job


def test_a_completed_run_of_the_same_configuration_is_finished(finished):
    assert finished.is_finished


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_aborted_run_is_not_finished(finished, status):
    write_summary(finished.folder, {"status": status, "error": "KeyError: 'a bug'"})
    assert not finished.is_finished


@pytest.mark.parametrize(
    ("error", "is_result"),
    [
        ("RunError: the head diverged for every seed", True),
        ("RunError: out of memory on cpu in solve_head", False),
        ("RunError: rank 0 lost another process of the run", False),
        ("RunError: process 1 of the run ended before it joined the others", False),
        ("KeyError: 'a bug'", False),
    ],
)
def test_a_failure_is_a_result_if_the_run_would_fail_again(finished, error, is_result):
    write_summary(finished.folder, {"status": "failed", "error": error})
    assert finished.is_finished is is_result


@pytest.mark.parametrize("other", ["descent.steps=21", "head.depth=4", "seed=1", "data.root=/elsewhere"])
def test_a_run_of_another_configuration_is_not_finished_and_in_the_way(finished, other):
    job = plan("e1", finished.folder, *SHRUNK, other)
    assert not job.is_finished
    key, _, value = other.partition("=")
    assert f"{key}=" in job.in_the_way and f"here {value}" in job.in_the_way
    assert finished.in_the_way is None


@pytest.mark.parametrize("other", ["logger=wandb", "record.figures=false", "trainer.threads=1", "features.cache=there"])
def test_how_a_run_is_made_and_watched_makes_no_other_configuration(finished, other):
    assert plan("e1", finished.folder, *SHRUNK, other).is_finished


def test_a_run_whose_configuration_is_lost_or_unreadable_is_not_finished(finished):
    path = finished.folder / ".hydra" / "config.yaml"
    for text in ("head: {no_such_setting: 1}\n", "head: [\n"):
        path.write_text(text)
        assert not finished.is_finished and "cannot be used" in finished.in_the_way
    path.unlink()
    assert not finished.is_finished


def test_a_finished_run_is_left_alone(finished):
    before = read_summary(finished.folder)
    assert finished.order().perform() is None
    assert read_summary(finished.folder) == before


def test_a_finished_run_is_repeated_from_the_start_when_that_is_asked_for_and_what_lies_beside_it_stays(finished):
    (finished.folder / "notes.txt").touch()
    (finished.folder / "stages").mkdir()
    (finished.folder / "stages" / "mine.py").touch()
    order = finished.order(repeat_before=time.time() + 1)
    assert order.perform() is None
    assert (finished.folder / "notes.txt").exists() and (finished.folder / "stages" / "mine.py").exists()
    assert not (finished.folder / ".dnc.lock").exists()
    assert read_summary(finished.folder)["seeds"] == [0, 1] and finished.is_finished


def test_a_run_that_was_repeated_since_is_not_repeated_again(finished):
    before = read_summary(finished.folder)
    assert finished.order(repeat_before=time.time() - 60).perform() is None
    assert read_summary(finished.folder) == before


def test_a_completed_run_of_another_configuration_is_never_overwritten(finished):
    before = read_summary(finished.folder)
    with pytest.raises(ConfigError, match="holds a completed run"):
        plan("e1", finished.folder, *SHRUNK, "seed=1").order().perform()
    assert read_summary(finished.folder) == before


def test_a_descent_that_diverges_for_every_seed_is_recorded_and_does_not_stop_the_study(tmp_path):
    job = plan("e1", tmp_path / "run", *SHRUNK, "descent.lr=1e6", "descent.steps=600")
    assert job.order().perform() is None
    assert not job.result().completed and job.is_finished


def test_an_aborted_run_goes_on_in_its_folder(finished):
    write_summary(finished.folder, {"status": "running"})
    (finished.folder / "kept").touch()
    assert finished.order().perform() is None
    assert (finished.folder / "kept").exists() and finished.is_finished


def test_a_run_that_somebody_else_makes_is_left_to_them(finished):
    write_summary(finished.folder, {"status": "running"})
    lock = FolderLock(finished.folder)
    assert finished.order().perform().startswith("process ")
    assert read_summary(finished.folder) == {"status": "running"}
    lock.release()


def test_a_closed_run_of_the_same_configuration_elsewhere_is_found(finished, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    open_job = plan("e1", elsewhere, *SHRUNK)
    closed = closed_runs([finished.folder, tmp_path / "nowhere"])
    assert list(closed) == [finished.folder]
    assert open_job.found_in(closed).folder == finished.folder
    assert plan("e1", elsewhere, *SHRUNK, "seed=9").found_in(closed).folder == elsewhere


def test_an_order_survives_the_way_to_another_process(tmp_path):
    order = plan("e1", tmp_path, *SHRUNK).order(repeat_before=1.5)
    assert Order.from_plain(json.loads(json.dumps(order.plain()))) == order


def test_the_commands_of_the_pipeline_know_a_run_of_a_study(tmp_path):
    job = plan("e1", tmp_path / "run", *SHRUNK, point=Point("deep", ("head.depth=4",)))
    job.order().perform()
    summary = read_summary(job.folder)
    (job.folder / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    dnc(f"resume={job.folder}", "record.figures=false", cwd=tmp_path)
    again = read_summary(job.folder)
    assert again["status"] == COMPLETED and again["loss"] == summary["loss"]
    assert "experiment=e1" in OmegaConf.load(job.folder / ".hydra" / "overrides.yaml")


def test_a_run_says_everything_to_its_own_log_and_nothing_to_the_terminal(tmp_path, capsys, caplog):
    handler = logging.StreamHandler()
    logging.root.addHandler(handler)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    try:
        plan("e1", tmp_path / "run", *SHRUNK).order().perform()
        plan("e1", tmp_path / "bad", *SHRUNK, "descent.lr=1e6", "descent.steps=600").order().perform()
    finally:
        logging.root.removeHandler(handler)
        logging.getLogger("pipeline").setLevel(logging.NOTSET)
    said = capsys.readouterr()
    assert said.out == said.err == ""
    assert "diverged" in (tmp_path / "bad" / "dnc.log").read_text()
    log = (tmp_path / "run" / "dnc.log").read_text()
    assert "record.csv" in log and "deep neural collapse" in log
    assert handler.level == logging.NOTSET

"""Paths mean where the command was given: in every job of a multirun, and when a run goes on from elsewhere."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import commands, dnc
from PIL import Image
from recomputation import summary_of

RUN = ["data=image_folder", "data.root=d", "backbone.epochs=1", "descent.seeds=1", "record.figures=false"]
RUN += ["logger=none", "features.cache=kept", "backbone.hidden=[8,8]", "head.width=8", "trainer.checkpoint_seconds=0"]
RUN += ["descent.records_per_decade=1"]
QUICK = "descent.steps=20"


@pytest.fixture
def project(tmp_path) -> Path:
    """A working directory with images in ``d``."""
    folder = tmp_path / "project"
    for name in ("a", "b"):
        (folder / "d" / name).mkdir(parents=True)
        for image in range(4):
            numbers = np.random.default_rng([ord(name), image]).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(numbers).save(folder / "d" / name / f"{image}.png")
    return folder


@pytest.mark.parametrize("chdir", ["true", "false"])
def test_jobs_that_work_in_folders_of_their_own_find_what_the_command_named(chdir, project):
    dnc(*RUN, QUICK, "hydra.run.dir=trained", cwd=project)
    more = [f"hydra.job.chdir={chdir}", "backbone.from_run=trained", "hydra.sweep.dir=m", "backbone.epochs=0,0"]
    dnc("--multirun", *RUN, QUICK, *more, cwd=project)
    assert [summary_of(project / "m" / job)["status"] for job in "01"] == ["completed"] * 2
    assert list(project.rglob("kept")) == [project / "kept"]
    # What was found out before there was a folder stands in the run's log, too.
    assert "classes are the folders 'a', 'b' in d" in (project / "trained/dnc.log").read_text()


def test_a_run_goes_on_from_anywhere_with_what_its_command_named(project, tmp_path):
    started = commands().start(*RUN, "descent.steps=200000", "hydra.run.dir=r", folder=project)
    started.wait_for(project / "r/stages/head.half.safetensors")
    os.kill(started.pid, signal.SIGTERM)
    assert started.end().code == 143
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = dnc("resume=../project/r", cwd=elsewhere)
    assert "going on from" in done.stdout and summary_of(project / "r")["status"] == "completed"
    assert list(elsewhere.iterdir()) == [] and list(tmp_path.rglob("kept")) == [project / "kept"]
    # And the folder still knows.
    kept = yaml.safe_load((project / "r/.hydra/config.yaml").read_text())
    assert (kept["data"]["root"], kept["features"]["cache"]) == (f"{project}/d", f"{project}/kept")


def test_a_path_given_now_means_where_one_is_now(project, tmp_path):
    started = commands().start(*RUN, "descent.steps=200000", "hydra.run.dir=r", folder=project)
    started.wait_for(project / "r/stages/head.half.safetensors")
    os.kill(started.pid, signal.SIGKILL)
    started.end()
    refused = dnc("resume=project/r", "data.root=d", cwd=tmp_path, check=False)
    assert refused.returncode == 2 and "data.root=d" in refused.stderr
    (tmp_path / "d").symlink_to(project / "d")
    dnc("resume=project/r", "data.root=d", cwd=tmp_path)
    assert summary_of(project / "r")["status"] == "completed"


def test_the_network_of_a_folder_from_elsewhere_is_not_imported_from_there(project, tmp_path):
    """The folder may be a stranger's: where it says that it was started is no place to take code from."""
    (project / "mine.py").write_text("raise SystemExit('code of a stranger')\n")
    (project / "r/.hydra").mkdir(parents=True)
    runtime = {"cwd": str(project), "config_sources": []}
    (project / "r/.hydra/hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": runtime}}))
    overrides = [*RUN, "backbone=custom", "backbone._target_=mine.Net"]
    overrides.remove("backbone.hidden=[8,8]")
    (project / "r/.hydra/overrides.yaml").write_text(yaml.safe_dump(overrides))
    refused = dnc("resume=project/r", cwd=tmp_path, check=False)
    assert refused.returncode == 2 and "there is no module mine" in refused.stderr

"""A multirun that was broken off goes on: what is completed stays as it is, the others run."""

import os
import signal
from pathlib import Path

import pytest
import yaml
from commands import commands, content, dnc

from pipeline.cli.invocation import hydra_arguments
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_summary

SWEEP = ["--multirun", "protocol=dufm", "logger=none", "record.figures=false", "descent.seeds=1", "head.width=8"]
SWEEP += ["protocol.num_features=8", "protocol.samples_per_class=5", "head.depth=2", "trainer.checkpoint_seconds=0"]
SWEEP += ["descent.records_per_decade=1"]
SHORT = [*SWEEP, "descent.steps=20", "hydra.sweep.dir=m"]
LONG = [*SWEEP, "descent.steps=20000", "seed=0,1,2,3"]


def seen(*arguments: str) -> list[str]:
    with hydra_arguments(arguments) as result:
        return result


def kept(folder: Path, job: str) -> dict[str, bytes]:
    return {name: (folder / job / name).read_bytes() for name in ("record.csv", "tensors.safetensors")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("alone")
    dnc(*LONG, "hydra.sweep.dir=m", cwd=place)
    return place / "m"


@pytest.mark.parametrize("way", [[*LONG, "hydra.sweep.dir=m"], ["resume=m"]], ids=["again", "resume"])
def test_a_multirun_killed_in_its_third_job_ends_as_one_left_alone(way, alone, tmp_path):
    killed = commands().start(*LONG, "hydra.sweep.dir=m", folder=tmp_path)
    killed.wait_for(tmp_path / "m/2/stages/head.half.safetensors")
    os.kill(killed.pid, signal.SIGKILL)
    killed.end()
    assert [read_summary(tmp_path / "m" / job)["status"] for job in "012"] == ["completed", "completed", "running"]
    finished = {job: content(tmp_path / "m" / job) for job in "01"}
    done = dnc(*way, cwd=tmp_path)
    assert {job: content(tmp_path / "m" / job) for job in "01"} == finished
    said = [line for line in done.stdout.splitlines() if line.endswith("is completed already, and skipped")]
    assert len(said) == 2 and "m/0" in said[0] and "m/1" in said[1]
    for job in "0123":
        assert kept(tmp_path / "m", job) == kept(alone, job)


def test_a_multirun_that_is_complete_is_left_alone_from_anywhere(tmp_path):
    dnc(*SHORT, "seed=0,1", cwd=tmp_path)
    before = content(tmp_path / "m")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for arguments, place in (
        ([*SHORT, "seed=0,1"], tmp_path),
        ([f"resume={tmp_path}/m", "trainer.threads=1"], elsewhere),
    ):
        done = dnc(*arguments, cwd=place)
        assert done.stdout.count("completed already, and skipped") == 2 and done.stderr == ""
        (heading,) = (line for line in done.stdout.splitlines() if line.startswith("2 runs in "))
        assert heading.endswith("m | dufm | free features, K=2, n=5") and "dnc report " in done.stdout.splitlines()[-1]
        assert "jobs:" not in done.stdout
        after = content(tmp_path / "m")
        assert after.pop("multirun.yaml") and after == {name: before[name] for name in after}
    assert list(elsewhere.iterdir()) == []


def test_completed_jobs_of_another_configuration_and_folders_of_others_are_refused_before_anything_is_written(tmp_path):
    dnc(*SHORT, "seed=0,1", cwd=tmp_path)
    before = content(tmp_path)
    done = dnc(*SHORT, "seed=2,1", cwd=tmp_path, check=False)
    assert done.returncode == 2 and content(tmp_path) == before
    assert "m/0 holds a completed run of another configuration (seed=0, now 2)" in done.stderr
    theirs = tmp_path / "m/2/record.csv"
    theirs.parent.mkdir()
    theirs.write_text("my own")
    before = content(tmp_path)
    done = dnc(*SHORT, "seed=0,1,2", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "m/2 holds record.csv, which no run of ours" in done.stderr
    assert content(tmp_path) == before
    theirs.unlink()
    more = dnc(*SHORT, "seed=0,1,2", cwd=tmp_path)
    assert more.stdout.count("skipped") == 2 and read_summary(tmp_path / "m/2")["status"] == "completed"


def test_an_interrupted_multirun_says_how_all_of_it_goes_on(tmp_path):
    started = commands().start(*LONG, "hydra.sweep.dir=m", folder=tmp_path)
    started.wait_for(tmp_path / "m/0/stages/head.half.safetensors")
    os.kill(started.pid, signal.SIGTERM)
    done = started.end()
    assert done.code == 143 and done.err.splitlines()[-1].endswith(f"dnc resume={tmp_path}/m")


def multirun(folder: Path, hydra: list[str], own: str | None = None) -> Path:
    """What Hydra leaves of a multirun."""
    folder.mkdir()
    sources = [{"path": own, "provider": "command-line"}] if own else []
    runtime = {"cwd": str(folder.parent), "config_sources": sources}
    node = {"overrides": {"task": ["seed=0,1"], "hydra": ["hydra.mode=MULTIRUN", *hydra]}, "runtime": runtime}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": node}))
    return folder


def test_what_a_multirun_was_submitted_with_is_taken_over(tmp_path):
    folder = multirun(tmp_path / "m", ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.sweep.dir=m"])
    launcher = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
    assert seen(f"resume={folder}") == ["--multirun", "seed=0,1", *launcher, f"hydra.sweep.dir='{folder}'"]


@pytest.mark.parametrize(
    "override", ["hydra.launcher.setup=[touch x]", "hydra.launcher.partition=x\ntouch x", "hydra.launcher.gres='a;b'"]
)
def test_what_may_be_a_command_is_not_taken_from_a_folder(override, tmp_path):
    folder = multirun(tmp_path / "m", [override])
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"sets {key}, which can hold commands"):
        seen(f"resume={folder}")
    assert f"{key}=mine" in seen(f"resume={folder}", f"{key}=mine")


def test_configurations_in_a_multiruns_folder_are_refused(tmp_path):
    folder = multirun(tmp_path / "m", ["hydra.searchpath=[file:///x]"], own=str(tmp_path / "m" / "conf"))
    with pytest.raises(ConfigError, match=r"asks for --config-dir=.*m/conf: that folder lies in the run folder"):
        seen(f"resume={folder}")


@pytest.mark.parametrize("asked", ["hydra.mode=RUN", "--config-dir=conf", "experiment=../own"])
def test_what_a_run_may_not_ask_for_a_multirun_may_not_either(asked, tmp_path):
    folder = multirun(tmp_path / "m", [])
    kept = (folder / "multirun.yaml").read_text()
    assert "seed=0,1" in kept
    (folder / "multirun.yaml").write_text(kept.replace("seed=0,1", asked))
    with pytest.raises(ConfigError, match="asks for"):
        seen(f"resume={folder}")


@pytest.mark.parametrize("text", ["", "[1]", "hydra: {overrides: 3}", "a: &a [1]\nb: *a\n", "\0"])
def test_a_damaged_multirun_is_refused_in_a_sentence(text, tmp_path):
    (tmp_path / "multirun.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"is not the folder of a multirun .*allowed: a folder with multirun\.yaml"):
        seen(f"resume={tmp_path}")

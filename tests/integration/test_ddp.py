"""Several processes, started in every way, make one run in one folder, once."""

import json
import os

import pytest
from commands import commands, dnc, forked_python
from recomputation import assert_same_course, record_of, summary_of

from pipeline.cli.app import EXIT_BAD_CONFIG

SMALL = ["data.samples_per_class=40", "backbone.hidden=[16,8]", "backbone.epochs=2", "head.width=8", "head.depth=2"]
SMALL += ["descent.records_per_decade=2", "descent.seeds=3", "descent.steps=300", "trainer.threads=1"]
DDP = ["trainer=ddp", "trainer.devices=2"]
OTHERS = {"python": forked_python()}
"""The second process is forked, too; where it is started as a process of its own: test_terminal, test_lost_ranks."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A multirun of two jobs of two processes each, tracked by wandb."""
    folder = tmp_path_factory.mktemp("swept")
    done = dnc(
        "--multirun", "hydra.sweep.dir=sweep", "seed=0,1", *DDP, *SMALL, "record.figures=false", cwd=folder, **OTHERS
    )
    return folder, done


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory):
    """The first of these jobs, its processes started by torchrun."""
    folder = tmp_path_factory.mktemp("torchrun")
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "--no-python"]
    command += [str(forked_python()), "-m", "pipeline", *DDP, *SMALL, "logger=none", "record.figures=false"]
    done = commands().run(*command, folder=folder)
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same job in one process."""
    folder = tmp_path_factory.mktemp("alone")
    dnc(*SMALL, "logger=none", "record.figures=false", "hydra.run.dir=run", cwd=folder)
    return folder / "run"


def test_a_multirun_has_one_folder_for_each_job_and_nothing_else(swept):
    folder, done = swept
    assert [path.name for path in folder.iterdir()] == ["sweep"]
    assert sorted(path.name for path in (folder / "sweep").iterdir()) == ["0", "1", "multirun.yaml"]
    for job in ("0", "1"):
        run = folder / "sweep" / job
        assert summary_of(run)["status"] == "completed"
        assert len(list((run / "wandb").glob("offline-run-*"))) == 1
        assert len(list(run.glob("*.log"))) == 1
        log = (run / "dnc.log").read_text().splitlines()
        assert sum("epoch 2/2" in line for line in log) == 1  # one process speaks
    assert done.stdout.count("Accuracy (train)") == 2


def test_jobs_of_a_multirun_are_their_own(swept):
    first, second = (record_of(swept[0] / "sweep" / job) for job in ("0", "1"))
    assert set(first.seed) == {0, 1, 2} and set(second.seed) == {1, 2, 3}


def test_torchrun_makes_the_same_run_in_one_folder(swept, torchrun):
    folder, _ = torchrun
    [run] = (folder / "outputs").glob("*/*")
    for name in ("record.csv", "tensors.safetensors"):
        assert (run / name).read_bytes() == (swept[0] / "sweep" / "0" / name).read_bytes()
    assert [path.name for path in folder.iterdir()] == ["outputs"]
    assert (run / ".hydra" / "overrides.yaml").exists() and len(list(run.glob("*.log"))) == 1


def test_two_processes_find_what_one_finds(swept, alone):
    assert_same_course(record_of(swept[0] / "sweep" / "0"), record_of(alone))


def test_settings_that_do_not_fit_the_launch_are_one_sentence(tmp_path):
    three = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "3"}
    cases = {
        ("trainer=ddp", "trainer.num_nodes=2"): ({}, "trainer.num_nodes=2 needs a launcher"),
        ("trainer.devices=2",): (three, "make 2 process(es), but torchrun started 3"),
        ("trainer.devices=2", "backbone.batch_size=1"): ({}, "backbone.batch_size=1 makes a batch of 1 image(s) for 2"),
        # 2 * 71 = 140 + 2
        ("trainer.devices=3", "backbone.batch_size=140", "data.samples_per_class=71"): (
            {},
            "(the last of 142 images) of 2 image(s) for 3",
        ),
        ("trainer.devices=100000",): ({}, "CPU cores; allowed: 1.."),
    }
    for arguments, (place, words) in cases.items():
        done = commands().run(*arguments, "trainer.accelerator=cpu", folder=tmp_path, environment=os.environ | place)
        assert done.code == EXIT_BAD_CONFIG and words in done.err and done.err.count("\n") == 1, done.err
    assert list(tmp_path.iterdir()) == []


def test_what_went_wrong_in_another_rank_is_not_a_traceback_here(tmp_path):
    """Every seed of the head diverges, on either rank: both find out, the first says so."""
    done = dnc(*SMALL, *DDP, "logger=none", "descent.lr=1e6", "hydra.run.dir=run", cwd=tmp_path, check=False, **OTHERS)
    assert done.returncode == 1 and "the head diverged for every seed" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"

"""Several processes under Slurm: one run, one folder, the numbers of one process; interrupted ones go on together."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import Done, forked_python
from local_cluster import job_number, until, written
from recomputation import assert_same_course

from pipeline.cli.app import EXIT_BAD_CONFIG
from pipeline.storage.record import read_record, read_summary

RUN = [
    "logger=none",
    "record.figures=false",
    "data.samples_per_class=20",
    "backbone.hidden=[8,8]",
    "backbone.epochs=40",
]
RUN += ["backbone.batch_size=4", "optimizer.lr=2e-3", "head.width=8", "head.depth=2", "descent.seeds=2"]
RUN += ["descent.steps=100", "descent.records_per_decade=1"]


@pytest.fixture(scope="module")
def started(launch, slurm, tmp_path_factory):
    """All runs of this module at once: mostly they wait."""
    folder = tmp_path_factory.mktemp("ddp")
    for name in ("launcher", "alone", "batch"):
        (folder / name).mkdir()
    on_slurm = ["--multirun", "hydra/launcher=slurm", "trainer=ddp", "trainer.devices=2", "hydra.sweep.dir=sweep"]
    with ThreadPoolExecutor() as pool:
        yield SimpleNamespace(
            folder=folder,
            launcher=launch(folder / "launcher", *on_slurm, *RUN, python=forked_python()),
            alone=launch(folder / "alone", "hydra.run.dir=run", *RUN),
            batch=pool.submit(two_nodes_interrupted, slurm, folder / "batch"),
        )


def two_nodes_interrupted(slurm, cwd: Path) -> list[str]:
    """A run over two nodes that gets a signal while it trains; the history of its job."""
    job = slurm.batch(cwd, "--nodes=2", *RUN)
    until(written(cwd / "outputs" / f"slurm-{job}" / "dnc.log", "epoch 1/40"), "the training", 240)
    slurm.ask("scancel", "--signal=USR1", job)
    return slurm.wait_for_end(job)


@pytest.fixture(scope="module")
def ranks_of_a_node(started) -> Path:
    """The finished run of two processes on one node."""
    done = started.launcher.end()
    sweep = started.folder / "launcher" / "sweep"
    assert done.code == 0, said(done, *sorted(sweep.glob(".submitit/*/*_log.*")), sweep / "0" / "dnc.log")
    return sweep / "0"


def said(done: Done, *logs: Path) -> str:
    """What a launcher and its jobs have left to explain a failure."""
    return "\n".join([done.err, *(f"{log}:\n{log.read_text()}" for log in logs if log.exists())])


def test_two_processes_of_a_node_make_the_run_of_one(ranks_of_a_node, started, slurm):
    done = started.alone.end()
    assert done.code == 0, done.err
    alone = started.folder / "alone" / "run"
    assert [read_summary(run)["environment"]["processes"] for run in (ranks_of_a_node, alone)] == [2, 1]
    assert_same_course(read_record(ranks_of_a_node), read_record(alone))
    number = job_number(ranks_of_a_node.parent)
    until(lambda: slurm.history(number) == ["COMPLETED 0:0"], "completed in accounting")


def test_several_processes_write_one_folder_once(ranks_of_a_node):
    sweep = ranks_of_a_node.parent
    assert [path.name for path in sweep.parent.iterdir()] == ["sweep"]
    assert sorted(path.name for path in sweep.iterdir()) == [".submitit", "0", "multirun.yaml"]
    files = {"checkpoints", "dnc.log", "record.csv", "summary.json", "tensors.safetensors", ".hydra"}
    assert {path.name for path in ranks_of_a_node.iterdir()} == files
    lines = (ranks_of_a_node / "dnc.log").read_text().splitlines()
    assert lines and len(lines) == len(set(lines))


def test_processes_on_two_nodes_that_were_interrupted_go_on_together(ranks_of_a_node, started):
    history = started.batch.result(300)
    (run,) = (started.folder / "batch" / "outputs").iterdir()
    (log,) = (started.folder / "batch").glob("slurm-*.log")
    assert history == ["REQUEUED 0:0", "COMPLETED 0:0"], log.read_text()
    story = (run / "dnc.log").read_text()
    assert story.count("going on from") == 1 and "backbone.ckpt (epoch" in story
    assert read_summary(run)["environment"]["processes"] == 2
    for name in ("record.csv", "tensors.safetensors"):
        assert (run / name).read_bytes() == (ranks_of_a_node / name).read_bytes()
    assert not (run / "stages").exists()


def test_processes_that_do_not_match_the_configuration_are_refused_once(slurm, tmp_path):
    command = ["srun", "--quiet", "--ntasks=2", "--ntasks-per-node=2"]
    command += [str(forked_python()), "-m", "pipeline", *RUN]
    done = subprocess.run(command, cwd=tmp_path, env=slurm.env, capture_output=True, text=True, timeout=240)
    assert done.returncode == EXIT_BAD_CONFIG
    (sentence,) = (line for line in done.stderr.splitlines() if not line.startswith("srun: "))
    assert sentence.startswith("error: trainer.devices=1 ") and "srun started 2" in sentence
    assert done.stdout == "" and list(tmp_path.iterdir()) == []

"""Multiruns through Slurm give what the same runs give without it, and failures reach whoever started them."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import commands
from local_cluster import job_number, until

from pipeline.cli.app import EXIT_BAD_CONFIG, EXIT_FAILED
from pipeline.storage.record import read_record, read_summary

TINY = [
    "--multirun",
    "protocol=dufm",
    "logger=none",
    "record.figures=false",
    "descent.steps=100",
    "descent.seeds=2",
    "head.width=8",
]
TINY += ["protocol.num_features=8", "protocol.samples_per_class=5", "head.depth=2", "descent.records_per_decade=2"]
SWEEP = "hydra.sweep.dir=sweep"
ON_SLURM = [*TINY, "hydra/launcher=slurm"]


@pytest.fixture(scope="module")
def started(launch, tmp_path_factory):
    """All launchers of this module at once: mostly they wait."""
    cases = {
        "sweep": [*ON_SLURM, "seed=0,1"],
        "direct": [*TINY, "seed=0,1", "hydra.sweep.dir=direct"],
        "two_nodes": [*ON_SLURM, "seed=0", "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2", SWEEP],
        "diverging": [*ON_SLURM, "descent.lr=1e6", SWEEP],
        "lost": [*ON_SLURM, "seed=0", SWEEP, "hydra.launcher.setup=[echo some error,echo the end,exit 7]"],
        "refused": [*ON_SLURM, "seed=0", "hydra.launcher.partition=nowhere"],
    }
    folders = {name: tmp_path_factory.mktemp(name) for name in cases}
    return SimpleNamespace(
        folders=folders, launchers={name: launch(folders[name], *arguments) for name, arguments in cases.items()}
    )


def test_runs_of_a_multirun_on_slurm_are_the_runs_made_without_it(started, slurm):
    for name in ("sweep", "direct"):
        done = started.launchers[name].end()
        assert done.code == 0, done.err
    # One folder for all, made at submission: its name's date and time are not those at which a job starts.
    (sweep,) = (started.folders["sweep"] / "multirun").glob("*/*")
    for job in "01":
        there, here = sweep / job, started.folders["direct"] / "direct" / job
        summary, expected = read_summary(there), read_summary(here)
        assert summary["status"] == "completed"
        assert list(read_record(there).seed.unique()) == [int(job), int(job) + 1]
        assert (there / "record.csv").read_bytes() == (here / "record.csv").read_bytes()
        for key in set(expected) - {"environment", "timings"}:
            assert summary[key] == expected[key]
    number = job_number(sweep)
    until(lambda: slurm.states(number) == {f"{number}_{job}": "COMPLETED" for job in "01"}, "completed in accounting")


def test_a_multirun_that_is_complete_is_no_jobs_again(started, slurm):
    done = started.launchers["sweep"].end()
    assert done.code == 0, done.err
    (sweep,) = (started.folders["sweep"] / "multirun").glob("*/*")
    number = job_number(sweep)
    again = commands().run(f"resume={sweep}", folder=started.folders["sweep"], environment=slurm.env)
    assert again.code == 0 and again.out.count("is completed already, and skipped") == 2, again.err
    assert job_number(sweep) == number


def test_a_run_over_two_nodes_is_the_run_made_by_one_process(started, slurm):
    for name in ("two_nodes", "direct"):
        done = started.launchers[name].end()
        assert done.code == 0, done.err
    sweep = started.folders["two_nodes"] / "sweep"
    there, here = sweep / "0", started.folders["direct"] / "direct" / "0"
    assert [read_summary(run)["environment"]["processes"] for run in (there, here)] == [2, 1]
    assert (there / "tensors.safetensors").read_bytes() == (here / "tensors.safetensors").read_bytes()
    ours, expected = read_record(there), read_record(here)
    assert ours.drop(columns="value").equals(expected.drop(columns="value"))
    # The descent is the same to the bit; a metric of one member is summed in another order than those of two at once.
    np.testing.assert_allclose(ours.value, expected.value, rtol=1e-10)
    number = job_number(sweep)
    until(lambda: slurm.history(number) == ["COMPLETED 0:0"], "completed in accounting")


def test_a_run_that_fails_is_reported_with_its_log(started):
    done = started.launchers["diverging"].end()
    assert done.code == EXIT_FAILED
    sweep = started.folders["diverging"] / "sweep"
    (sentence,) = re.findall(r"^error: (.*)$", done.err, re.M)
    log = Path(re.search(r"log: (\S+)\)$", sentence).group(1))
    assert log.parent.parent == sweep / ".submitit" and log.name.endswith("_0_log.out")
    assert read_summary(sweep / "0")["status"] == "failed"
    assert "Traceback" in log.read_text() and "diverged" in sentence and "diverged" in log.read_text()


def test_a_job_that_ends_without_a_result_is_reported_with_its_log(started):
    done = started.launchers["lost"].end()
    assert done.code == EXIT_FAILED
    number = job_number(started.folders["lost"] / "sweep")
    (sentence,) = re.findall(r"^error: (.*)$", done.err, re.M)
    assert f"job {number} " in sentence and "FAILED; its log says: some error (log: " in sentence
    assert f"{started.folders['lost']}/sweep/.submitit/{number}/{number}_0_log.out" in sentence


def test_a_partition_that_is_not_there_is_refused_in_one_sentence(started):
    done = started.launchers["refused"].end()
    assert done.code == EXIT_BAD_CONFIG
    assert "Traceback" not in done.out + done.err and "partition" in done.err.splitlines()[-1]

"""Runs of the command on an emulated device: every protocol, a run that is resumed, two ranks."""

import os
from pathlib import Path

import pandas as pd
import pytest
from emulated_cuda import seen
from on_emulated import OF_RANKS, command

from pipeline.runs.training.learners import Learner

pytestmark = pytest.mark.gpu

DROPPING = ["backbone=custom", "backbone._target_=normed.Dropping"]
PROTOCOLS = {
    "frozen_features": ["trainer.precision=tf32", "descent.momentum=0.5"],
    "end_to_end": ["protocol.regularization=dufm"],
    "fixed_head": ["protocol.solution=descent"],
    "network": ["optimizer.lr=0.01"],
    "dufm": [],
    "kernels": [],
    "shallow": [],
}


def last_values(run: Path) -> pd.Series:
    table = pd.read_csv(run / "record.csv", dtype={"layer": str}).fillna({"layer": "", "tap": ""})
    return table.sort_values("step").groupby(["stage", "layer", "tap", "metric", "seed"]).value.last()


@pytest.fixture(autouse=True)
def back(monkeypatch):
    monkeypatch.chdir(Path.cwd())  # where a run has gone to its folder
    monkeypatch.syspath_prepend(os.environ["EMULATED_RANKS"])  # has the module of `DROPPING`


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_runs_and_comes_to_what_it_comes_to_on_the_cpu(name, tmp_path):
    own = [f"protocol={name}", *PROTOCOLS[name]]
    assert command(tmp_path / "gpu", *own) == 0
    own = [argument for argument in own if argument != "trainer.precision=tf32"]  # which a CPU has not
    assert command(tmp_path / "cpu", *own, "trainer.accelerator=cpu") == 0
    found, expected = (last_values(tmp_path / where / "run") for where in ("gpu", "cpu"))
    pd.testing.assert_series_equal(found, expected, rtol=1e-5, atol=1e-7)


def test_a_resumed_run_in_half_precision_drops_the_units_that_it_would_have_dropped(tmp_path, monkeypatch):
    arguments = ["protocol=network", *DROPPING, "trainer.checkpoint_seconds=0", "backbone.epochs=2"]
    arguments.append("trainer.precision=bf16")
    assert command(tmp_path / "alone", *arguments) == 0
    step, steps = Learner.training_step, []

    def interrupted(learner: Learner, batches: object, batch_idx: int) -> object:
        steps.append(batch_idx)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return step(learner, batches, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", interrupted)
        assert command(tmp_path / "resumed", *arguments) != 0
    assert command(tmp_path / "resumed", *arguments) == 0
    for name in ("record.csv", "tensors.safetensors"):
        alone, resumed = ((tmp_path / where / "run" / name).read_bytes() for where in ("alone", "resumed"))
        assert alone == resumed, name


def test_a_step_of_a_training_waits_for_nothing(tmp_path):
    """Whatever else a run waits for, ten batches wait no more often than two."""

    def waits(batch_size: int) -> int:
        seen.clear()
        more = ["protocol=network", "backbone=mlp", "backbone.hidden=[8]", "backbone.epochs=1"]
        assert command(tmp_path / str(batch_size), *more, f"backbone.batch_size={batch_size}") == 0
        # A trial of how long a batch takes waits as often as it likes.
        return sum(count for where, count in seen.waits.items() if "pace.py" not in where)

    two, ten = waits(10), waits(2)
    assert ten <= two, seen.waits


def test_two_ranks_come_to_what_one_comes_to(tmp_path):
    assert command(tmp_path, *OF_RANKS) == 0
    found, expected = last_values(Path(os.environ["EMULATED_RANKS"]) / "run"), last_values(tmp_path / "run")
    assert list(found.index) == list(expected.index)
    chosen = expected.index.get_level_values("metric").isin(("train_loss", "dnc1", "loss"))
    pd.testing.assert_series_equal(found[chosen], expected[chosen], rtol=1e-3, atol=1e-6)

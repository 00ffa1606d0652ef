"""Callbacks of Lightning's that a user names: they see every batch and what was measured, and change no number."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from pipeline.config import conf_folder
from pipeline.config.messages import register
from pipeline.data import ROUND, load_images
from pipeline.dufm.objectives import load_objective
from pipeline.networks import build_backbone, load_weights
from pipeline.runs.checking import checked
from pipeline.runs.training import pace
from pipeline.runs.training.callbacks import keep_plain, user_callbacks
from pipeline.runs.training.checkpoints import TrainingCheckpoints, ended_by
from pipeline.runs.training.learners import Classifier
from pipeline.runs.training.training import train
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.storage.record import Record

STOPPING, SAVING = (f"pytorch_lightning.callbacks.{name}" for name in ("EarlyStopping", "ModelCheckpoint"))
WATCHED = "head/layer_3/post/dnc1"
BATCHES = 13


class Seen(pl.Callback):
    """What a callback sees; kept in a checkpoint too."""

    last: "Seen"

    def __init__(self, fail_at: int = 0) -> None:
        self.fail_at, self.steps, self.epochs = fail_at, [], []
        Seen.last = self

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        assert math.isfinite(outputs["loss"]) and len(batch) == 2
        self.steps.append(trainer.global_step)
        self.batches, self.index = trainer.num_training_batches, batch_idx
        if trainer.global_step == self.fail_at:
            raise KeyError("a mistake of the user's")

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.epochs.append(trainer.callback_metrics.get(WATCHED, torch.tensor(math.nan)).item())

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "epochs": list(self.epochs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.epochs = state["steps"], state["epochs"]


SEEN = f"{__name__}.Seen"


@pytest.fixture
def fit(composed, tmp_path):
    """Train for some epochs of 13 batches, with a record that holds these values of `WATCHED`; the learner."""

    def run(
        callbacks: list[dict] | None, values: Sequence[float] = (3, 2, 1, 2, 2, 2), every: int = 1, name: str = "run"
    ) -> Classifier:
        epochs = len(values) - 1
        config = composed("backbone.hidden=[4]", f"backbone.epochs={epochs}", "backbone.batch_size=4", "logger=none")
        config.trainer.callbacks = callbacks
        images = load_images("digits", classes=[0, 1], samples_per_class=25)
        backbone = build_backbone("mlp", images.image_shape, hidden=[4])
        learner = Classifier(backbone, 2, load_objective("mse"), config.optimizer, epochs, 0)
        record = Record(tmp_path / name)

        def measure(epoch: int) -> str:
            record.add("head", epoch, [0, 1], {"dnc1": [values[epoch], values[epoch]]}, layer="3", tap="post")
            return ""

        checkpoints = TrainingCheckpoints(tmp_path / name / "checkpoints" / "backbone.ckpt", "key", record, seconds=0)
        train(learner, images, config, [*range(0, epochs, every), epochs], measure, checkpoints)
        learner.measured = [row.step for row in record.rows[::2]]
        return learner

    return run


def flat(learner: Classifier) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])


def test_a_callback_sees_every_batch_as_a_step_and_changes_no_number(fit, monkeypatch):
    monkeypatch.setattr(pace, "_seconds_of_a_batch", lambda *arguments: 1e-3)
    plain, seen = fit(None, name="plain"), fit([{"_target_": SEEN}])
    assert plain.round == ROUND and seen.round == 1
    assert Seen.last.steps == list(range(1, 5 * BATCHES + 1))
    assert (Seen.last.batches, Seen.last.index) == (BATCHES, BATCHES - 1)
    assert torch.equal(flat(plain), flat(seen))


def test_what_was_measured_is_there_at_the_end_of_its_epoch_and_only_then(fit):
    fit([{"_target_": SEEN}], values=(9, 5, 4, 3, 2, 1), every=2)
    assert Seen.last.epochs == pytest.approx([math.nan, 4, math.nan, 2, 1], nan_ok=True)


@pytest.mark.parametrize("every, last", [(1, 4), (2, 8)])
def test_early_stopping_counts_measurements_and_says_why(every, last, fit, tmp_path):
    values = [3, 2, 1, 2, 2, 2] if every == 1 else [3, 0, 2, 0, 1, 0, 2, 0, 2, 0, 2, 0, 2]
    learner = fit([{"_target_": STOPPING, "monitor": WATCHED, "patience": 2}], values, every)
    assert learner.measured[-1] == last and learner.trainer.current_epoch == last
    why = ended_by(tmp_path / "run" / "checkpoints" / "backbone.ckpt")
    assert why.startswith(f"EarlyStopping ({WATCHED}") and "did not improve in the last 2 records" in why
    again = fit([{"_target_": STOPPING, "monitor": WATCHED, "patience": 2}], values, every)  # it had ended
    assert again.trainer.global_step == last * BATCHES and again.measured == learner.measured


class Stop(pl.Callback):
    """After the third epoch."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        trainer.should_stop = trainer.current_epoch == 2


def test_the_epoch_with_which_a_callback_ends_a_training_is_measured(fit, tmp_path):
    learner = fit([{"_target_": f"{__name__}.Stop"}], [1.0] * 11, every=5)
    assert learner.measured == [0, 3]
    assert ended_by(tmp_path / "run" / "checkpoints" / "backbone.ckpt") == "Stop"


def test_the_best_network_is_kept_and_can_be_measured_by_others(fit, tmp_path):
    learner = fit([{"_target_": SAVING, "monitor": WATCHED, "filename": "best"}], (3, 2, 1, 2, 3, 4))
    file = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert learner.trainer.checkpoint_callback.best_model_path == str(file)
    assert torch.load(file, weights_only=True)["epoch"] == 1  # the second one
    backbone = build_backbone("mlp", (1, 8, 8), hidden=[4])
    load_weights(backbone, file, "backbone.checkpoint", None)
    kept = torch.load(file, weights_only=True)["state_dict"]
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, kept[f"backbone.{name}"])


def test_a_training_that_goes_on_keeps_the_state_of_its_callbacks(fit):
    whole = fit([{"_target_": SEEN}], name="whole")
    expected = Seen.last.steps, Seen.last.epochs
    with pytest.raises(RunError, match=r"trainer.callbacks: Seen failed in on_train_batch_end \(KeyError: .a mistake"):
        fit([{"_target_": SEEN, "fail_at": 2 * BATCHES + 5}])
    again = fit([{"_target_": SEEN}])
    assert (Seen.last.steps, Seen.last.epochs) == expected
    assert torch.equal(flat(whole), flat(again))


@pytest.mark.parametrize(
    ("watched", "hint"),
    [("head/layer_3/post/dnc2", WATCHED), ("head/layer3/post/dnc1", WATCHED), ("val_loss", "a key such as")],
)
def test_a_watched_key_that_nobody_records_is_named_with_those_like_it(watched, hint, fit):
    with pytest.raises(RunError, match=f"EarlyStopping watches {watched}, which is not recorded") as caught:
        fit([{"_target_": STOPPING, "monitor": watched}])
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_another_callback_may_log_what_one_watches(fit, caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(RunError, match="conditioned on metric `mine`"):
        fit([{"_target_": SEEN}, {"_target_": STOPPING, "monitor": "mine"}])
    assert "watches mine, which is not recorded" in caplog.text


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"_target_": STOPPING, "monitr": "x"}, ["cannot be made with monitr=x", "'monitr'", "arguments it takes"]),
        ({"_target_": STOPPING, "monitor": "x", "mode": "least"}, ["cannot be made", "mode"]),
        ({"_target_": "pytorch_lightning.callbacks.EarlyStoping"}, ["has no EarlyStoping", "EarlyStopping"]),
        ({"_target_": "torch.nn.Linear", "in_features": 1}, ["class not derived from it (Linear)", "Callback"]),
        ({"_target_": "os.system", "command": "true"}, ["is a builtin_function_or_method", "Callback"]),
        ({"_target_": "nowhere.Class"}, ["there is no module nowhere", "working directory"]),
        ({"_target_": "x"}, ["is not a dotted path"]),
    ],
)
def test_what_is_no_callback_is_refused_in_a_sentence(entry, parts, composed):
    config = composed("logger=none")
    config.trainer.callbacks = [entry]
    with pytest.raises(ConfigError) as caught:
        user_callbacks(config)
    sentence = str(caught.value)
    assert sentence.startswith("trainer.callbacks: ") and all(part in sentence for part in parts)
    assert "allowed: " in sentence and sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trainer.callbacks=3"], "trainer.callbacks=3 is no list"),
        (["trainer.callbacks=[3]"], "trainer.callbacks has 3, which is no mapping"),
        (["trainer.callbacks=[{monitor:a}]"], "which names no class"),
        (["protocol=dufm", f"trainer.callbacks=[{{_target_:{SAVING}}}]"], "callbacks do not see our own descent"),
        (["protocol=end_to_end", f"trainer.callbacks=[{{_target_:{STOPPING}}}]"], "cannot be made with no arguments"),
        ([f"trainer.callbacks=[{{_target_:{SAVING}}},{{_target_:{SAVING}}}]"], "two callbacks whose state is kept"),
    ],
)
def test_callbacks_are_checked_with_the_configuration(arguments, part):
    register()
    with (
        initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())),
        pytest.raises(ConfigError) as caught,
    ):
        checked(compose("main", arguments))
    assert part in str(caught.value) and "allowed: " in str(caught.value)


def test_a_state_that_a_checkpoint_may_not_hold_is_left_out_and_told(caplog):
    states = {"ours": {"a": 1}, "good": {"best": torch.ones(1)}, "bad": {"path": Path("a")}, "worse": {"f": lambda: 1}}
    with caplog.at_level(logging.WARNING):
        keep_plain(states, but="ours")
    assert set(states) == {"ours", "good"} and "state of bad" in caplog.text and "state of worse" in caplog.text


@pytest.mark.parametrize("seconds, batches", [(1e-3, ROUND), (2e-2, ROUND), (3e-2, 1), (1.0, 1)])
def test_one_batch_is_a_step_where_lightning_costs_little_of_it(seconds, batches, fit, monkeypatch):
    monkeypatch.setattr(pace, "_seconds_of_a_batch", lambda *arguments: seconds)
    learner = fit(None, (2, 1))
    assert learner.round == batches
    assert learner.trainer.num_training_batches == math.ceil(BATCHES / batches)

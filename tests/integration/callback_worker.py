"""The ranks of the tests in test_callbacks_on_ranks.py: each trains with callbacks, and writes what they saw.

Argument: a folder.
"""

import sys
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from rank_worker import IMAGES, config, in_ranks

from pipeline.networks import build_backbone
from pipeline.runs.inputs import Inputs
from pipeline.runs.protocols import perform
from pipeline.runs.run import Run
from pipeline.runtime import ranks

WATCHED = "head/layer_3/post/dnc1"
EPOCHS = 6
BATCH = 50


class Seen(pl.Callback):
    """Keeps what it sees, and on one rank may ask for the end after an epoch."""

    last: "Seen"

    def __init__(self, ends: int | None = None) -> None:
        self.ends, self.steps, self.watched, self.shares = ends, [], [], []
        Seen.last = self

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.steps.append(trainer.global_step)
        self.shares.append(len(batch[1]))

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.watched.append(trainer.callback_metrics[WATCHED].item())
        self.trainer = trainer
        if self.ends == trainer.current_epoch and ranks.rank() == 1:
            trainer.should_stop = True


SEEN = {"_target_": "callback_worker.Seen"}
SAVING = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "monitor": WATCHED, "filename": "best"}
STOPPING = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": WATCHED}
CASES = {
    "nobody stops": [SEEN, SAVING],
    "EarlyStopping": [SEEN, SAVING, STOPPING | {"min_delta": 1e9, "patience": 2}],  # nothing improves by so much
    "one rank asks": [SEEN | {"ends": 1}],
}


def trained(folder: Path, callbacks: list[dict]) -> dict:
    """What the callbacks of this rank saw of a small training under a head, and the weights it ends with."""
    small = {"backbone__epochs": EPOCHS, "backbone__batch_size": BATCH, "descent__records_per_decade": 20}
    setting = config(protocol__name="end_to_end", trainer__callbacks=callbacks, **small)
    network = build_backbone("mlp", IMAGES.image_shape, seed=0, hidden=[12, 7])
    run = Run.start(setting, Inputs(IMAGES, network), folder)
    perform(run)
    seen, saving = Seen.last, Seen.last.trainer.checkpoint_callbacks
    best = next((one for one in saving if isinstance(one, pl.callbacks.ModelCheckpoint)), None)
    return {
        "steps": seen.steps,
        "shares": seen.shares,
        "watched": seen.watched,
        "best": best and (best.best_model_path, best.best_model_score.item()),
        "recorded": {row.step: row.value for row in run.record.rows if row.key == WATCHED},
        "weights": network.state_dict(),
    }


def work(folder: Path) -> None:
    found = {case: trained(folder / case, callbacks) for case, callbacks in CASES.items()}
    torch.save(found, folder / f"{ranks.rank()}.pt")


if __name__ == "__main__":
    sys.modules["callback_worker"] = sys.modules["__main__"]  # of which `trainer.callbacks` names a class
    in_ranks(2, partial(work, Path(sys.argv[1])))

"""The checkpoints of a training."""

import logging
import pickle
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pipeline.runtime import ranks
from pipeline.runtime.checkpoint_timer import CheckpointTimer
from pipeline.runtime.errors import RunError
from pipeline.runtime.interruption import interruption
from pipeline.runtime.text import printable
from pipeline.storage.reading import check_file
from pipeline.storage.record import Record
from pipeline.storage.shapes import ANY, fault
from pipeline.storage.stages import NOT_USED, parsed_rows, previous_checkpoint, save_keeping_previous

log = logging.getLogger(__name__)


_CHECKPOINT = {"callbacks": {ANY: {}}, "epoch": int, "global_step": int, "state_dict?": {}}
_CHECKPOINT |= {"loops?": {"fit_loop": {"epoch_progress": {}, "epoch_loop.batch_progress": {}}}}
_CHECKPOINT |= {"optimizer_states?": [{}], "lr_schedulers?": [{}]}
"""What of a checkpoint is looked into; `pipeline.storage.shapes`."""


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be used; says why."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, beside the previous one: Lightning's own save is not atomic everywhere."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        save_keeping_previous(Path(path), content.getbuffer())


class TrainingCheckpoints(pl.Callback):
    """Saves a training, with the rows it recorded and the states of all ranks' global generators, and finds it again.

    Args:
        path: of the checkpoint; the previous one lies beside it.
        key: fingerprint of the settings that the training depends on.
        record: of the run; the rows it holds now belong to earlier stages.
        seconds: between two checkpoints.
    """

    def __init__(self, path: Path, key: str, record: Record, seconds: float) -> None:
        self.path, self.key, self.record = path, key, record
        self.timer, self.start = CheckpointTimer(seconds), len(record.rows)
        self.rejected: set[Path] = set()
        self.begun = self.ended = False
        self._kept: dict[str, Any] | None = None

    def latest(self) -> Path | None:
        """The latest whole checkpoint of a training under the same settings; None if there is none."""
        return ranks.broadcast(self._latest() if ranks.is_first() else None)

    def _latest(self) -> Path | None:
        other_key, last = False, "the training begins anew"
        for path, otherwise in ((self.path, "the one before it is used"), (previous_checkpoint(self.path), last)):
            if path in self.rejected:
                continue
            try:
                content = read_checkpoint(path)
                own = content["callbacks"].get(self.state_key, {})
                if own.get("key") == self.key:
                    _check_own(own)
            except FileNotFoundError:
                continue
            except DamagedCheckpoint as reason:
                log.warning("%s is damaged (%s); %s", path, reason, otherwise)
                continue
            if own.get("key") == self.key:
                log.info("going on from %s (epoch %d, step %d)", path, content["epoch"], content["global_step"])
                return path
            other_key = True
        if other_key:
            log.info(NOT_USED, self.path)
        return None

    def reject(self, path: Path, error: Exception) -> None:
        """Do not find this checkpoint any more: the training could not be begun from it."""
        self.rejected.add(path)
        self._kept = None
        log.warning("%s is damaged (%s); it is not used", path, _reason(error))

    def state_dict(self) -> dict[str, Any]:
        generators, *others = ranks.gather(_generators())  # Lightning asks all ranks, and writes what the first says
        rows = [list(row) for row in self.record.rows[self.start :]]
        undefined = [[*where, why] for where, why in self.record.undefined.items()]
        own = {"key": self.key, "rows": rows, "undefined": undefined, "generators": generators}
        own |= {"generators_of_others": others} if others else {}
        return own | {"ended": True} if self.ended else own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._kept = state_dict  # its rows belong into the record once all else is known to be usable

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        interruption.listen()  # Lightning has put its own handlers in place
        if self._kept is not None and self._kept.get("ended"):  # it had found what it was looking for
            trainer.should_stop = True
        self._restore()
        self.begun = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()  # a training that had ended is not started

    def _restore(self) -> None:
        """Take over what the checkpoint holds besides Lightning's own, once."""
        if self._kept is None:
            return
        generators = [self._kept["generators"], *self._kept.get("generators_of_others", [])]
        if ranks.rank() < len(generators):
            _set_generators(generators[ranks.rank()])
        else:  # an older version's, of rank 0 alone; what this one draws is at least not what that one does
            log.warning("the checkpoint lacks the generators of rank %d, which begin anew", ranks.rank())
        self.record.restore(*parsed_rows(self._kept["rows"], self._kept["undefined"]))
        self._kept = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:  # after that one comes the end of the epoch
            self._save_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs:
            self._save(trainer, pl_module)
        self._save_if_due(trainer, pl_module)

    def _save_if_due(self, trainer: pl.Trainer, learner: pl.LightningModule) -> None:
        if self.timer.due():
            self._save(trainer, learner)
            self.timer.restart_or_exit()

    def _save(self, trainer: pl.Trainer, learner: pl.LightningModule) -> None:
        batch = trainer.train_dataloader.position
        check_finite(learner, f"in epoch {trainer.current_epoch + 1}, batch {batch} (step {trainer.global_step})")
        self.ended = trainer.should_stop
        trainer.save_checkpoint(self.path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What Lightning kept in a file, on the CPU; tensors and plain values only, so that no stranger's code runs.

    Raises:
        FileNotFoundError: there is none.
        DamagedCheckpoint: the checksums (CRC-32) of its parts do not match, or it holds anything else.
    """
    try:
        check_file(path)
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise DamagedCheckpoint(f"the checksum of {broken} does not match")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, DamagedCheckpoint):
        raise
    except pickle.UnpicklingError as error:
        raise DamagedCheckpoint("it holds more than tensors and plain values") from error
    except Exception as error:  # a sound archive may hold anything
        raise DamagedCheckpoint(_reason(error)) from error
    if not isinstance(content, dict) or not {"callbacks", "epoch", "global_step"} <= content.keys():
        raise DamagedCheckpoint("it is not of a training")
    if why := fault(content, _CHECKPOINT):
        raise DamagedCheckpoint(printable(why))
    return content


def _generators() -> dict[str, torch.Tensor]:
    """States of this rank's global generators, from which dropout draws."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else states


def _set_generators(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _check_own(state: dict[str, Any]) -> None:
    """Raise DamagedCheckpoint unless this is what `TrainingCheckpoints.state_dict` gives."""
    generator, others = torch.get_rng_state(), state.get("generators_of_others", [])
    for generators in (state.get("generators"), *(others if isinstance(others, list) else [None])):
        kept = generators.get("cpu") if isinstance(generators, dict) else None
        if not isinstance(kept, torch.Tensor) or kept.shape != generator.shape or kept.dtype != generator.dtype:
            raise DamagedCheckpoint("it lacks the state of the generators")
    try:
        parsed_rows(state["rows"], state["undefined"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint("its rows are none of a record") from error


def _reason(error: Exception) -> str:
    return printable(str(error).strip().partition("\n")[0])[:300] or type(error).__name__


def check_finite(learner: pl.LightningModule, where: str) -> None:
    """Nothing that holds NaN or infinity may take the place of a good checkpoint.

    Args:
        where: in words; the numbers may have gone wrong a few steps before.

    Raises:
        RunError: a parameter or a buffer does.
    """
    for name, tensor in learner.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise RunError(
                f"backbone training diverged: {name} holds NaN or infinity {where}; "
                f"a smaller optimizer.lr (now {learner.optimizer.lr:g}) usually helps."
            )

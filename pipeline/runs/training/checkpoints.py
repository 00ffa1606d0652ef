"""The checkpoints of a training."""

import logging
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pipeline.data import ROUND
from pipeline.runs.training.callbacks import keep_plain
from pipeline.runtime import ranks
from pipeline.runtime.checkpoint_timer import CheckpointTimer
from pipeline.runtime.errors import RunError
from pipeline.runtime.files import atomic
from pipeline.runtime.interruption import interruption
from pipeline.runtime.text import printable
from pipeline.storage.classes import Part, Place, parsed
from pipeline.storage.reading import check_file
from pipeline.storage.record import Record
from pipeline.storage.shapes import ANY, fault
from pipeline.storage.stages import NOT_USED, parsed_rows, previous_checkpoint, save_keeping_previous

log = logging.getLogger(__name__)


_CHECKPOINT = {"callbacks": {ANY: {}}, "epoch": int, "global_step": int, "state_dict?": {}}
_CHECKPOINT |= {"loops?": {"fit_loop": {"epoch_progress": {}, "epoch_loop.batch_progress": {}}}}
_CHECKPOINT |= {"optimizer_states?": [{}], "lr_schedulers?": [{}]}
"""What of a checkpoint is looked into; `pipeline.storage.shapes`."""


COLLAPSED = "collapsed"
"""Why a training ended that had found what it was looking for (`stop_when_collapsed`)."""


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be used; says why."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, ours beside the previous one: Lightning's save is not atomic everywhere.

    Args:
        own: path of ours; None: all are. What callbacks of the user's save elsewhere is kept as they say.
    """

    def __init__(self, own: Path | None = None) -> None:
        super().__init__()
        self.own = own

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        states = checkpoint.get("callbacks", {})
        keep_plain(states, but=TrainingCheckpoints.__qualname__)
        content = BytesIO()
        torch.save(checkpoint, content)
        if self.own in (None, Path(path)):
            save_keeping_previous(Path(path), content.getbuffer())
            return
        with atomic(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())


class TrainingCheckpoints(Checkpoint):
    """Saves a training, with the rows it recorded and the states of all ranks' global generators, and finds it again.

    Being a `Checkpoint`, it comes after all other callbacks, whose states it saves.

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
        self.begun, self.ended = False, ""
        self.round: int | None = None
        """Batches in a step of Lightning's."""
        self.stopping: Callable[[pl.Trainer], str] = lambda trainer: COLLAPSED
        """Called at the end of the epoch with which a training stops early; says why it does."""
        self._kept: dict[str, Any] | None = None

    def latest(self) -> Path | None:
        """The latest whole checkpoint of a training under the same settings; None if there is none.

        Steps of Lightning's (`round`) then have as many batches as they had there.
        """
        path, round_there = ranks.broadcast(self._latest() if ranks.is_first() else (None, None))
        self.round = round_there or self.round
        return path

    def _latest(self) -> tuple[Path | None, int | None]:
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
                return path, own.get("round", ROUND)
            other_key = True
        if other_key:
            log.info(NOT_USED, self.path)
        return None, None

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
        own |= {"noted": self.record.noted, "round": self.round or ROUND}
        tensors, told = self.record.classes.kept()
        own |= {"classes": told, "class_tensors": tensors} if told else {}
        own |= {"generators_of_others": others} if others else {}
        return own | {"ended": self.ended} if self.ended else own

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
        self.record.note_again(self._kept.get("noted"))
        self.record.classes.parts.update(_classes(self._kept))
        self.record.restore(*parsed_rows(self._kept["rows"], self._kept["undefined"]))
        self._kept = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:  # after that one comes the end of the epoch
            self._save_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = bool(ranks.largest(float(trainer.should_stop)))  # a callback may have asked on one rank
        if trainer.should_stop:
            self.ended = self.stopping(trainer)
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
        trainer.save_checkpoint(self.path)


def ended_by(path: Path) -> str | None:
    """Why the training whose checkpoint lies there ended before its last epoch; None if it did not, or nobody knows."""
    try:
        ended = read_checkpoint(path)["callbacks"].get(TrainingCheckpoints.__qualname__, {}).get("ended")
    except (FileNotFoundError, DamagedCheckpoint):
        return None
    return printable(ended) if isinstance(ended, str) else None


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
    if not isinstance(state.get("round", ROUND), int) or state.get("round", ROUND) < 1:
        raise DamagedCheckpoint("its steps have no length")
    try:
        parsed_rows(state["rows"], state["undefined"])
        _classes(state)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint("its rows are none of a record") from error


def _classes(state: dict[str, Any]) -> dict[Place, Part]:
    """The table of classes that was kept with the rows, if there was one."""
    return parsed(state.get("class_tensors", {}), state.get("classes", []))


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

"""Callbacks of Lightning's that a user names (``trainer.callbacks``), and what they see of a training.

Each entry is ``{_target_: package.module.Class, argument: value, ...}``; the class has to derive from Lightning's
``Callback``, and what is trusted is what ``backbone._target_`` trusts (`pipeline.runtime.dotted`). They see steps of
one batch, and in ``trainer.callback_metrics`` what the record holds of the epoch that has just been measured, by its
keys (`Row.key`): ``head/layer_3/post/dnc1``. At the end of an epoch that is not measured these keys are not there, so
that an `EarlyStopping` counts measurements, as it counts validations elsewhere.
"""

import io
import logging
import pickle
import traceback
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from pipeline.config import Config
from pipeline.runtime.dotted import importable_here, named
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.settings import shown
from pipeline.runtime.suggestions import did_you_mean
from pipeline.runtime.text import first_line
from pipeline.storage.record import Record, Row

log = logging.getLogger(__name__)

CLASS = "a class derived from pytorch_lightning.Callback"
ALWAYS = ("epoch", "step")
"""What Lightning itself offers to those that watch something."""


def user_callbacks(config: Config) -> list[Callback]:
    """New objects of the classes in ``trainer.callbacks``.

    Raises:
        ConfigError: one is no callback, or does not take its arguments.
    """
    made = [_made(entry) for entry in config.trainer.callbacks or ()]
    keys = [callback.state_key for callback in made if type(callback).state_dict is not Callback.state_dict]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ConfigError(
            f"trainer.callbacks has two callbacks whose state is kept under one name ({twice[0]}); allowed: callbacks "
            "of different classes or, where the class tells them apart, with different arguments."
        )
    return made


def _made(entry: dict[str, Any]) -> Callback:
    target, arguments = entry["_target_"], {key: value for key, value in entry.items() if key != "_target_"}
    key = f"trainer.callbacks: {target}"
    try:
        found = named(target, key, CLASS)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not (isinstance(found, type) and issubclass(found, Callback)):
        kind = f"class not derived from it ({found.__name__})" if isinstance(found, type) else type(found).__name__
        raise ConfigError(f"{key} is a {kind}; allowed: {CLASS}.")
    with importable_here():
        try:
            return found(**arguments)
        except (Exception, SystemExit) as error:
            said = ", ".join(f"{name}={shown(value)}" for name, value in arguments.items()) or "no arguments"
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(f"{key} cannot be made with {said} ({reason}); allowed: arguments it takes.") from error


class Published:
    """What the record holds of the last measured epoch, among the values that callbacks may watch."""

    def __init__(self, record: Record, users: Sequence[Callback]) -> None:
        self.record, self.users = record, users
        self._start, self._end = len(record.rows), len(record.rows)
        self._shown: set[str] = set()
        self._checked = not users

    def measured(self, trainer: pl.Trainer) -> None:
        """Show the rows that are new since the last call, means over seeds; none, if there are none."""
        new, self._end = self.record.rows[self._end :], len(self.record.rows)
        for key in self._shown:
            trainer.callback_metrics.pop(key, None)
        if self.users:
            values = means(new)
            trainer.callback_metrics.update(values)
            self._shown = set(values)

    def begun(self) -> None:
        """The first epoch is about to begin, all is known that will be recorded: are watched keys among that?

        Raises:
            RunError: a callback watches what nobody records.
        """
        self._end = len(self.record.rows)  # those of a training that goes on were restored
        if self._checked:
            return
        self._checked = True
        known = sorted({row.key for row in self.record.rows[self._start :]})
        for callback in self.users:
            watched = getattr(callback, "monitor", None)
            if not isinstance(watched, str) or watched in ALWAYS:
                continue
            if watched in known:
                if isinstance(callback, EarlyStopping):
                    callback.strict = False  # between two measurements there is nothing to look at
                continue
            self._complain(type(callback).__name__, watched, known)

    def _complain(self, who: str, watched: str, known: list[str]) -> None:
        """Others may log what they like, which shows only later."""
        said = f"trainer.callbacks: {who} watches {watched}, which is not recorded while the network trains"
        if watched.startswith("head/") and not any(key.startswith("head/") for key in known):
            said += " (here the head is solved after it, by our own descent, which callbacks do not see)"
        said += f"; allowed: a key such as {known[0]}{did_you_mean(watched, known, most=3)}." if known else "."
        if all(type(callback).__module__.startswith("pytorch_lightning.") for callback in self.users):
            raise RunError(said)
        log.warning("%s", said)


def means(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Values by key, means over seeds, float64 scalars."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.key, []).append(row.value)
    return {key: torch.tensor(found, dtype=torch.float64).mean() for key, found in values.items()}


def stopped_by(users: Sequence[Callback]) -> str:
    """Which callback has ended a training, and why, as far as it says."""
    for callback in users:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            said = first_line(callback.stopping_reason_message).removesuffix(" Signaling Trainer to stop")
            said = said.removeprefix("Monitored metric ").rstrip(".")
            return f"EarlyStopping ({said if callback.monitor in said else f'{callback.monitor}: {said}'})"
    return " or ".join(dict.fromkeys(type(callback).__name__ for callback in users))


def keep_plain(states: dict[str, Any], but: str) -> None:
    """Leave only states of callbacks that a checkpoint may hold: tensors and plain values, and nobody's code.

    Args:
        but: the one that is known to be plain.
    """
    for key in [key for key in states if key != but]:
        content = io.BytesIO()
        try:
            torch.save(states[key], content)
            torch.load(io.BytesIO(content.getvalue()), weights_only=True)
        except (pickle.UnpicklingError, pickle.PicklingError, AttributeError, TypeError) as error:
            del states[key]
            log.warning(
                "trainer.callbacks: the state of %s holds more than tensors and plain values and is not kept in "
                "checkpoints (%s)",
                key,
                first_line(error),
            )


def explained(error: Exception, users: Sequence[Callback]) -> Exception:
    """The error of a callback as a sentence; others as they are."""
    if isinstance(error, RunError):
        return error
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [(frame, owner) for frame in frames for owner in users if frame.f_locals.get("self") is owner]
    reason = f"{type(error).__name__}: {first_line(error)}"
    if owners:
        frame, owner = owners[0]
        return RunError(f"trainer.callbacks: {type(owner).__name__} failed in {frame.f_code.co_name} ({reason}).")
    if users and isinstance(error, MisconfigurationException):
        return RunError(f"trainer.callbacks: Lightning refuses them ({reason}).")
    return error

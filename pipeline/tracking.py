"""The record mirrored to Weights & Biases through Lightning's WandbLogger.

Tracking never decides over a run: it does not prompt, it does not wait, and when it fails the run goes on and says so
once. Keys are the record's: ``head/layer_2/post/dnc1``, the mean over seeds, against ``head/step`` (gradient steps,
or epochs where the head is trained with the backbone), ``backbone/step`` (epochs) or ``dufm/step`` (gradient steps).
"""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import wandb
from pytorch_lightning.loggers import WandbLogger

from pipeline.config import LoggerConfig
from pipeline.record import Row

log = logging.getLogger(__name__)

# A server that does not answer must not hold up a run (seconds).
INIT_TIMEOUT = 8.0
FINISH_TIMEOUT = 8.0


class Tracker:
    """One wandb run, or nothing (``logger=none``, or wandb failed)."""

    def __init__(self, logger: WandbLogger | None) -> None:
        self.logger = logger

    @classmethod
    def start(cls, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any], job_type: str) -> "Tracker":
        """Open the run in ``folder`` and log its configuration."""
        if config.name == "none":
            return cls(None)
        tracker = cls(None)
        tracker._guard(lambda: tracker._open(config, folder, run_config, job_type))
        return tracker

    def _open(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any], job_type: str) -> None:
        mode = config.mode
        if mode == "online" and not _has_key():
            log.warning("wandb: no API key found (WANDB_API_KEY or `wandb login`); tracking offline instead.")
            mode = "offline"
        arguments = {
            "project": config.project,
            "dir": str(folder),
            "group": config.group,
            "tags": config.tags or None,
            "job_type": job_type,
            "config": dict(run_config),
        }
        try:
            run = _open_run(mode, arguments)
        except wandb.errors.CommError as error:
            if mode == "offline":
                raise
            log.warning("wandb: the server did not answer (%s); tracking offline instead.", _first_line(error))
            run = _open_run("offline", arguments)
        self.logger = WandbLogger(experiment=run)
        for stage in ("head", "backbone", "dufm"):
            run.define_metric(f"{stage}/step")
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def rows(self, rows: list[Row]) -> None:
        """Mirror rows of the record: the mean over seeds of every metric."""
        if self.logger is None:
            return
        values: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            where = f"layer_{row.layer}/{row.tap}/" if row.layer else ""
            values[row.stage, row.step][f"{row.stage}/{where}{row.metric}"].append(row.value)
        for (stage, step), metrics in values.items():
            means = {key: torch.tensor(numbers, dtype=torch.float64).mean().item() for key, numbers in metrics.items()}
            self._guard(lambda means=means, stage=stage, step=step: self._log({f"{stage}/step": step, **means}))

    def _log(self, metrics: dict[str, float]) -> None:
        assert self.logger is not None
        self.logger.log_metrics(metrics)

    def finish(self, summary: Mapping[str, Any], figures: list[Path], *, failed: bool = False) -> None:
        """Log the summary and the figures and close the run (each job of a multirun has its own)."""
        if self.logger is None:
            return
        self._guard(lambda: self._finish(summary, figures, failed))
        self.logger = None

    def _finish(self, summary: Mapping[str, Any], figures: list[Path], failed: bool) -> None:
        assert self.logger is not None
        run = self.logger.experiment
        if figures:
            run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures if path.suffix == ".png"})
        run.summary.update(
            {key: summary[key] for key in ("status", "loss", "accuracy", "verdict", "fixed_head") if key in summary}
        )
        run.finish(exit_code=int(failed))

    def _guard(self, action: Callable[[], None]) -> None:
        """Tracking errors of any kind end the tracking, not the run."""
        try:
            action()
        except Exception as error:  # wandb raises its own, OS and protocol errors alike
            self.logger = None
            log.warning("wandb failed (%s); the run goes on, the local record is complete.", _first_line(error))


def _open_run(mode: str, arguments: dict[str, Any]) -> wandb.Run:
    settings = wandb.Settings(
        silent=True, init_timeout=INIT_TIMEOUT, finish_timeout=FINISH_TIMEOUT, x_disable_stats=True, save_code=False
    )
    return wandb.init(mode=mode, settings=settings, **arguments)


def _has_key() -> bool:
    return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

"""The record mirrored to one of Lightning's loggers: ``csv/metrics.csv``, ``tensorboard/`` or MLflow.

Keys are those of wandb (`pipeline.views.wandb.content`), the step is that of the stage: epochs or gradient steps. An
attempt at a run mirrors the record from its first row on: the CSV file is written anew, TensorBoard is told to forget
what earlier attempts wrote, and an MLflow run (``mlflow/run.json``) is not sent again what it has.
"""

import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from pipeline.config import LoggerConfig
from pipeline.runtime.files import atomic
from pipeline.runtime.text import first_line
from pipeline.storage.reading import Unreadable, json_of
from pipeline.storage.record import Row
from pipeline.storage.summary import RunSummary, read
from pipeline.views.step_by_step import StepByStep
from pipeline.views.wandb import content
from pipeline.views.wandb.norms import feature_norms

log = logging.getLogger(__name__)

IDENTITY = "run.json"
ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
"""MLflow wants to be told that its runs may be files, which is what a run without a server keeps."""


class LightningTracker(StepByStep):
    """One logger of one run; None once it has failed."""

    def __init__(
        self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any], asides: content.Asides
    ) -> None:
        super().__init__()
        self.config, self.folder, self.run_config, self.asides = config, folder, run_config, asides
        self.logger: Logger | None = None
        self.last = 0
        self.best: dict[str, float] = {}
        self.known: dict[str, int] = {}
        """The last step of each stage that an earlier attempt has sent."""

    @classmethod
    def start(
        cls,
        config: LoggerConfig,
        folder: Path,
        run_config: Mapping[str, Any],
        job_type: str,
        asides: content.Asides,
    ) -> "LightningTracker":
        """Open the logger of the run in ``folder``, or continue it, and log its configuration."""
        tracker = cls(config, folder, run_config, asides)
        tracker._guard(lambda: tracker._open(job_type))
        return tracker

    @property
    def open(self) -> bool:
        return self.logger is not None

    def finish(self, summary: Mapping[str, Any], figures: list[Path], *, failed: bool = False) -> None:
        """Log the headline of a completed run as numbers of its last step, and close."""
        if self.open:
            self._guard(lambda: self._finish(RunSummary(summary), failed))
        self.logger = None

    def _open(self, job_type: str) -> None:
        experiment, overrides = content.chosen(self.folder)
        group = self.config.group or content.multirun(self.folder) or experiment
        settings = content.run_config(self.run_config, read(self.folder).uses)
        with warnings.catch_warnings(action="ignore"):  # of a folder that is there already
            if self.config.name == "csv":
                (self.folder / "csv" / "metrics.csv").unlink(missing_ok=True)
                self.logger = CSVLogger(self.folder, name="csv", version="", flush_logs_every_n_steps=1)
            elif self.config.name == "tensorboard":
                self.logger = TensorBoardLogger(
                    self.folder, name="tensorboard", version="", default_hp_metric=False, purge_step=0
                )
            else:
                name, kept = content.display_name(job_type, overrides), self._kept()
                self.logger = self._mlflow(name, {"protocol": job_type, "group": group}, kept)
                if kept is not None:
                    return  # its settings are there, and MLflow takes no others
            self.logger.log_hyperparams(settings)
            self.logger.save()

    def _mlflow(self, name: str, tags: dict[str, str | None], kept: str | None) -> MLFlowLogger:
        uri = self.config.uri or os.environ.get("MLFLOW_TRACKING_URI") or (self.folder / "mlflow").absolute().as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault(ALLOWED, "true")
        tags |= {"mlflow.note.content": self.config.notes} | dict.fromkeys(self.config.tags, "true")
        given = {key: value for key, value in tags.items() if value}
        logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)  # that it makes an experiment
        logger = MLFlowLogger(self.config.project, run_name=name, tracking_uri=uri, tags=given, run_id=kept)
        if kept is not None:
            for key in logger.experiment.get_run(kept).data.metrics:
                if key.endswith("/step"):
                    history = logger.experiment.get_metric_history(kept, key)
                    self.known[key.removesuffix("/step")] = max(entry.step for entry in history)
        with atomic(self.folder / "mlflow" / IDENTITY) as path:
            path.write_text(json.dumps({"id": logger.run_id, "uri": uri}) + "\n")
        return logger

    def _kept(self) -> str | None:
        """The id of an earlier attempt's MLflow run, where this one is to go."""
        try:
            found = json_of(self.folder / "mlflow" / IDENTITY, {"id": str, "uri": str})
        except (OSError, Unreadable):
            return None
        return found["id"] if self.config.uri in (None, found["uri"]) else None

    def _send_pending(self) -> None:
        rows, self._pending = self._pending, []
        self._guard(lambda: self._send(rows))

    def _send(self, rows: list[Row]) -> None:
        row, self.last = content.history_row(rows, None, self.asides), rows[0].step
        self.best = content.smallest(self.best, row)
        if rows[0].step > self.known.get(rows[0].stage, -1):
            self._log(row)

    def _log(self, row: Mapping[str, float]) -> None:
        row = content.in_order(row, self.config.keys)
        if self.config.name != "csv":  # the others have no place for what is undefined
            row = {key: value for key, value in row.items() if math.isfinite(value)}
        self.logger.log_metrics(row, step=self.last)

    def _finish(self, summary: RunSummary, failed: bool) -> None:
        # An interrupted run may be started again, and its last row may lack some layers: it will come then, complete.
        if summary.status != "interrupted" and self._pending:
            self._send_pending()
        if not self.open:
            return
        if summary.completed:
            found = content.headline(summary, None)
            self._log(self.best | {name: float(at) for name, at in found.items() if isinstance(at, int | float)})
            if self.config.name == "mlflow":
                for name in ("status", "verdict", "title"):
                    if name in found:
                        self.logger.experiment.set_tag(self.logger.run_id, name, found[name])
            if self.config.histograms and self.config.name == "tensorboard":
                activation = self.run_config.get("head", {}).get("activation", "relu")
                for key, norms in feature_norms(self.folder, summary, None, activation).items():
                    self.logger.experiment.add_histogram(key, norms.numpy(), self.last)
        self.logger.save()
        words = {"interrupted": "KILLED"} if self.config.name == "mlflow" else {}
        self.logger.finalize(words.get(summary.status, "failed" if failed else "success"))

    def _guard(self, action: Callable[[], None]) -> None:
        """Errors of any kind end the tracking, not the run."""
        try:
            action()
        except Exception as error:  # the libraries raise their own, OS and protocol errors alike
            self.logger = None
            name = self.config.name
            log.warning("%s failed (%s); the run goes on, the local record is complete.", name, first_line(error))

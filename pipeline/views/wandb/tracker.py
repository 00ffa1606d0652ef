"""A listener of the record that mirrors it to wandb, and closes with tables, figures and headline numbers."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb

from pipeline.config import LoggerConfig
from pipeline.storage.record import Row, read_record
from pipeline.storage.summary import RunSummary, Uses, read
from pipeline.views.wandb import content
from pipeline.views.wandb.runs import close_runs, first_line, is_offline, open_runs, server_answers

log = logging.getLogger(__name__)


@dataclass
class Channel:
    """One wandb run and what it is sent: means over all seeds, or one seed."""

    run: wandb.Run
    seed: int | None = None
    rows: int = 0
    best: dict[str, float] = field(default_factory=dict)
    stages: set[str] = field(default_factory=set)

    def announce(self, stage: str) -> None:
        """Say what the x axis of a stage's curves is, before the first of them."""
        if stage not in self.stages:
            self.stages.add(stage)
            self.run.define_metric(f"{stage}/step", hidden=True)
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def send(self, row: Mapping[str, Any]) -> None:
        """Log a row at the step that is its number, unless an earlier attempt has."""
        if self.rows >= self.run.starting_step:
            self.run.log(dict(row), step=self.rows, commit=True)
        self.rows += 1


class Tracker:
    """The wandb runs of one run: one, or one per seed; none once wandb has failed."""

    def __init__(self, config: LoggerConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.channels: list[Channel] = []
        self._pending: list[Row] = []

    @classmethod
    def start(cls, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any], job_type: str) -> "Tracker":
        """Open the run in ``folder``, or continue it, and log its configuration."""
        tracker = cls(config, folder)
        tracker._guard(lambda: tracker._open(run_config, job_type))
        return tracker

    def rows(self, rows: list[Row]) -> None:
        """Mirror rows of the record. Those of one stage and step make one row, sent when the next one begins."""
        if not self.channels:
            return
        for row in rows:
            if self._pending and (row.stage, row.step) != (self._pending[0].stage, self._pending[0].step):
                self._guard(self._send_pending)
            self._pending.append(row)

    def finish(self, summary: Mapping[str, Any], figures: list[Path], *, failed: bool = False) -> None:
        """Log the summary, tables and figures of a completed run and close (each job of a multirun has its own)."""
        if self.channels:
            self._guard(lambda: self._finish(summary, figures, failed))
        self.channels = []

    def _open(self, run_config: Mapping[str, Any], job_type: str) -> None:
        experiment, overrides = content.chosen(self.folder)
        uses = read(self.folder).uses
        seeds = self._seeds(run_config, uses)
        runs = open_runs(
            self.config.mode,
            self.folder,
            content.display_name(job_type, overrides),
            ["" if seed is None else f"-seed{seed}" for seed in seeds],
            self.config.patience,
            project=self.config.project,
            group=self.config.group or experiment,
            tags=self.config.tags or None,
            notes=self.config.notes,
            job_type=job_type,
            config=content.run_config(run_config, uses),
        )
        self.channels = [Channel(run, seed) for run, seed in zip(runs, seeds, strict=True)]

    def _seeds(self, run_config: Mapping[str, Any], uses: Uses) -> list[int | None]:
        """Whose wandb runs there are: the seeds' of a head if they are to be told apart, else one of them all."""
        if self.config.runs != "per_seed" or uses.head is None:
            return [None]
        return [run_config["seed"] + index for index in range(run_config["descent"]["seeds"])]

    def _send_pending(self) -> None:
        rows, self._pending = self._pending, []
        for channel in self.channels:
            if row := content.history_row(rows, channel.seed):
                channel.best = content.smallest(channel.best, row)
                channel.announce(rows[0].stage)
                channel.send(row)

    def _finish(self, summary: Mapping[str, Any], figures: list[Path], failed: bool) -> None:
        ended = RunSummary(summary)
        # An interrupted run may be started again, and its last row may lack some layers: it will come then, complete.
        if ended.status != "interrupted" and self._pending:
            self._send_pending()
        offline = is_offline(self.channels[0].run)
        reachable = offline or server_answers(self.config.patience)
        for channel in self.channels:
            channel.run.summary.update(channel.best | {"status": ended.status})
            if ended.completed:
                self._send_results(channel, ended, figures, reachable)
        if self.config.artifact and reachable and summary.get("tensors"):
            self._send_tensors(self.channels[0].run, self.folder / summary["tensors"])
        directory = Path(self.channels[0].run.dir).parent
        close_runs([channel.run for channel in self.channels], exit_code=int(failed))
        if not reachable:
            log.warning(
                "wandb: the server has stopped answering; `wandb sync --include-online %s` sends what it has not got.",
                directory,
            )

    def _send_results(self, channel: Channel, summary: RunSummary, figures: list[Path], reachable: bool) -> None:
        """The last row of the history: figures and, because wandb asks its server before it takes any, tables."""
        row: dict[str, Any] = {
            f"figures/{path.stem}": wandb.Image(str(path)) for path in figures if path.suffix == ".png"
        }
        if reachable:
            tables = {
                "layers": content.layer_table(summary, channel.seed),
                "verdict_by_layer": content.verdict_table(summary),
            }
            if channel.seed is None:
                tables["seeds"] = content.seed_table(read_record(self.folder), summary, wandb.Table.MAX_ROWS)
            filled = {name: table for name, table in tables.items() if table is not None and table[1]}
            row |= {name: wandb.Table(columns=columns, data=data) for name, (columns, data) in filled.items()}
        channel.send(row)
        channel.run.summary.update(content.headline(summary, channel.seed))

    def _send_tensors(self, run: wandb.Run, file: Path) -> None:
        artifact = wandb.Artifact(f"tensors-{run.id}", type="tensors", description="final features and weights")
        artifact.add_file(str(file))
        run.log_artifact(artifact)

    def _guard(self, action: Callable[[], None]) -> None:
        """Tracking errors of any kind end the tracking, not the run."""
        try:
            action()
        except Exception as error:  # wandb raises its own, OS and protocol errors alike
            self.channels = []
            log.warning("wandb failed (%s); the run goes on, the local record is complete.", first_line(error))
            with suppress(Exception):
                wandb.teardown()  # or it would try once more when the process ends, and fail with a traceback

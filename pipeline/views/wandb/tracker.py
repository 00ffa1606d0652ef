"""A listener of the record that mirrors it to wandb, and closes with tables, figures and headline numbers."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb

from pipeline.config import LoggerConfig
from pipeline.storage.record import Row, read_record
from pipeline.storage.summary import HEAD, RunSummary, Uses, read
from pipeline.views.step_by_step import StepByStep
from pipeline.views.wandb import Reached, content
from pipeline.views.wandb.artifacts import send_files
from pipeline.views.wandb.content import REACHED, Asides
from pipeline.views.wandb.norms import BINS, feature_norms
from pipeline.views.wandb.runs import (
    CLOSING,
    close_runs,
    first_line,
    is_offline,
    kept_group,
    open_runs,
    server_answers,
)

log = logging.getLogger(__name__)


@dataclass
class Channel:
    """One wandb run and what it is sent: means over all seeds, or one seed."""

    run: wandb.Run
    seed: int | None = None
    rows: int = 0
    best: dict[str, float] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)

    def announce(self, stage: str, globs: Iterable[str]) -> None:
        """Say what the x axis of curves of a stage is, before the first of them."""
        axis = f"{stage}/step"
        if axis not in self.announced:
            self.announced.add(axis)
            self.run.define_metric(axis, hidden=True)
        for glob in globs:
            if glob not in self.announced:
                self.announced.add(glob)
                self.run.define_metric(glob, step_metric=axis)

    def send(self, row: Mapping[str, Any]) -> None:
        """Log a row at the step that is its number, unless an earlier attempt has."""
        if self.rows >= self.run.starting_step:
            self.run.log(dict(row), step=self.rows, commit=True)
        self.rows += 1


class Tracker(StepByStep):
    """The wandb runs of one run: one, or one per seed; none once wandb has failed."""

    def __init__(
        self,
        config: LoggerConfig,
        folder: Path,
        run_config: Mapping[str, Any],
        asides: Asides,
        reached: Reached | None = None,
    ) -> None:
        super().__init__()
        self.reached = reached if config.alert else None
        self.expected: set[str] = {""}  # keys of a measurement of the head; until one is complete, nobody knows
        self.config = config
        self.folder = folder
        self.run_config = run_config
        self.asides = asides
        self.channels: list[Channel] = []

    @classmethod
    def start(
        cls,
        config: LoggerConfig,
        folder: Path,
        run_config: Mapping[str, Any],
        job_type: str,
        asides: Asides,
        reached: Reached | None = None,
    ) -> "Tracker":
        """Open the run in ``folder``, or continue it, and log its configuration."""
        tracker = cls(config, folder, run_config, asides, reached)
        tracker._guard(lambda: tracker._open(job_type))
        return tracker

    @property
    def open(self) -> bool:
        return bool(self.channels)

    def rows(self, rows: Sequence[Row]) -> None:
        """Mirror rows of the record; the first that meet the verdict are told at once."""
        super().rows(rows)
        if self.reached and self.channels and self.expected <= {row.key for row in self._pending}:
            self._guard(lambda: self._alert_reached(self._pending))

    def _alert_reached(self, rows: Sequence[Row]) -> None:
        """Tell that rows of one step meet the verdict, unless an earlier attempt at this run has sent them."""
        if self.reached is None or rows[0].stage != HEAD or not (text := self.reached(rows)):
            return
        self.reached, channel = None, self.channels[0]
        if channel.rows >= channel.run.starting_step:
            channel.run.alert(REACHED, f"{channel.run.name}: {text} (step {rows[0].step})", "INFO")

    def finish(self, summary: Mapping[str, Any], figures: list[Path], *, failed: bool = False) -> None:
        """Log the summary, tables and figures of a completed run and close (each job of a multirun has its own)."""
        if self.channels:
            self._guard(lambda: self._finish(summary, figures, failed))
        self.channels = []

    def _open(self, job_type: str) -> None:
        experiment, overrides = content.chosen(self.folder)
        uses = read(self.folder).uses
        seeds = self._seeds(uses)
        runs = open_runs(
            self.config.mode,
            self.folder,
            content.display_name(job_type, overrides),
            ["" if seed is None else f"-seed{seed}" for seed in seeds],
            self.config.patience,
            entity=self.config.entity,
            project=self.config.project,
            group=self.config.group or content.multirun(self.folder) or kept_group(self.folder) or experiment,
            tags=self.config.tags or None,
            notes=self.config.notes,
            job_type=job_type,
            config=content.run_config(self.run_config, uses),
        )
        self.channels = [Channel(run, seed) for run, seed in zip(runs, seeds, strict=True)]

    def _seeds(self, uses: Uses) -> list[int | None]:
        """Whose wandb runs there are: the seeds' of a head if they are to be told apart, else one of them all."""
        if self.config.runs != "per_seed" or uses.head is None:
            return [None]
        first = self.run_config["seed"]
        return [first + index for index in range(self.run_config["descent"]["seeds"])]

    def _send_pending(self) -> None:
        rows, self._pending = self._pending, []
        self._guard(lambda: self._send(rows))

    def _send(self, rows: list[Row]) -> None:
        stage, order = rows[0].stage, self.config.keys
        self._alert_reached(rows)  # of the first measurement, or of those that an earlier attempt has recorded
        if stage == HEAD:
            self.expected = {row.key for row in rows}
        for channel in self.channels:
            if row := content.history_row(rows, channel.seed, self.asides):
                channel.best = content.smallest(channel.best, row)
                channel.announce(stage, content.axis_globs(row, stage, order))
                channel.send(content.in_order(row, order))

    def _finish(self, summary: Mapping[str, Any], figures: list[Path], failed: bool) -> None:
        ended = RunSummary(summary)
        # An interrupted run may be started again, and its last row may lack some layers: it will come then, complete.
        if ended.status != "interrupted" and self._pending:
            self._send_pending()
        offline = is_offline(self.channels[0].run)
        reachable = offline or server_answers(self.config.patience)
        for channel in self.channels:
            channel.run.summary.update(content.in_order(channel.best, self.config.keys) | {"status": ended.status})
            if ended.completed:
                self._send_results(channel, ended, figures, reachable)
        run = self.channels[0].run
        if self.config.artifact and reachable:
            from_run = self.run_config.get("backbone", {}).get("from_run") if ended.uses.network else None
            send_files(run, self.folder, ended, from_run, CLOSING * self.config.patience)
        if self.config.alert:
            told = self.reached is None
            for title, text, level in content.alerts(summary, str(run.name)):
                if title != REACHED or not told:
                    run.alert(title, text, level)
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
        if self.config.histograms:
            activation = self.run_config.get("head", {}).get("activation", "relu")
            norms = feature_norms(self.folder, summary, channel.seed, activation)
            row |= {key: wandb.Histogram(values.tolist(), num_bins=BINS) for key, values in norms.items()}
        channel.send(row)
        channel.run.summary.update(content.headline(summary, channel.seed))

    def _guard(self, action: Callable[[], None]) -> None:
        """Tracking errors of any kind end the tracking, not the run."""
        try:
            action()
        except Exception as error:  # wandb raises its own, OS and protocol errors alike
            self.channels = []
            log.warning("wandb failed (%s); the run goes on, the local record is complete.", first_line(error))
            with suppress(Exception):
                wandb.teardown()  # or it would try once more when the process ends, and fail with a traceback

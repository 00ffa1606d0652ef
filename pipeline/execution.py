"""One run from its configuration to its closed record."""

import logging
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pipeline.config import Config
from pipeline.figures import run_figure, save_figure
from pipeline.inputs import Inputs
from pipeline.protocols import PROTOCOLS
from pipeline.record import COMPLETED, Record, read_record, write_summary, write_tensors
from pipeline.report import closing, opening, print_verdict
from pipeline.resume import STAGES
from pipeline.run import Run
from pipeline.tracking import Tracker

log = logging.getLogger(__name__)


def execute(config: Config, inputs: Inputs, folder: Path) -> dict[str, Any]:
    """Run one validated configuration on its inputs in ``folder`` and return its summary.

    Raises:
        RunError: for a reason the user can mend; the summary's status is then ``failed``.
    """
    _quiet_libraries()
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    record = Record(folder)
    run = Run(config, inputs, folder, record)
    summary = opening(run)
    write_summary(folder, summary)
    tracker = Tracker.start(config.logger, folder, asdict(config), config.protocol.name)
    record.listeners.append(tracker.rows)
    figures: list[Path] = []
    try:
        outcome = PROTOCOLS[config.protocol.name](run)
        record.save()
        skipped = write_tensors(
            folder, outcome.head.labels, outcome.head.features, outcome.head.weights, config.record.max_tensor_mb
        )
        summary = closing(run, outcome, skipped)
        with run.stopwatch.time("figures"):
            figures = save_figure(run_figure(read_record(folder), summary), folder / "figures", "collapse")
        write_summary(folder, summary)
        shutil.rmtree(folder / STAGES, ignore_errors=True)  # all of it stands in tensors.safetensors and record.csv
    except BaseException as error:
        status = "failed" if isinstance(error, Exception) else "interrupted"
        summary = opening(run) | {"status": status, "error": f"{type(error).__name__}: {error}"}
        if record.rows:
            record.save()
        write_summary(folder, summary)
        raise
    finally:
        tracker.finish(summary, figures, failed=summary["status"] != COMPLETED)
    terminal = Console()
    print_verdict(summary, terminal if terminal.is_terminal else Console(width=110))
    log.info("Record, figures and tensors: %s", folder)
    return summary


def _quiet_libraries() -> None:
    """Silence tips, device tables and font subsetting, and a deprecation that is Lightning's to mend; warnings stay."""
    for name in ("pytorch_lightning", "fontTools", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")

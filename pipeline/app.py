"""The command ``dnc`` = ``python -m pipeline``: validate, run a protocol, close the record."""

import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from pipeline.config import Config, ConfigError, conf_folder, settings
from pipeline.figures import run_figure, save_figure
from pipeline.messages import explain, register
from pipeline.protocols import PROTOCOLS
from pipeline.record import COMPLETED, Record, read_record, read_summary, write_summary, write_tensors
from pipeline.report import closing, opening, print_verdict
from pipeline.stages import Inputs, Run, prepare
from pipeline.tracking import Tracker
from pipeline.training import RunError

log = logging.getLogger(__name__)

EXIT_FAILED, EXIT_BAD_CONFIG, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


def main() -> None:
    """Console entry point; exits 0 done, 1 failed, 2 bad configuration, 130 interrupted, 143 terminated."""
    register()
    # Hydra then hands us its errors instead of printing them its own way and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, _terminate)
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="main")(job)()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        sentence = str(error) if isinstance(error, ConfigError) else explain(error)
        _exit(f"error: {sentence}", EXIT_BAD_CONFIG)
    except RunError as error:
        _exit(f"error: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        _exit("interrupted", EXIT_INTERRUPTED)


def _exit(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(EXIT_TERMINATED)


class ValidateFirst(Callback):
    """Hydra callback: refuse a bad configuration, and data that are not right, before the run's folder is made."""

    prepared: ClassVar[list[tuple[Config, Inputs]]] = []

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave the validated configuration and its inputs in ``prepared`` for the job that follows."""
        try:
            _refuse_completed(Path(config.hydra.run.dir))
            checked = settings(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
            self.prepared.append((checked, prepare(checked)))
        except (ConfigError, OmegaConfBaseException) as error:
            # Hydra turns a callback's exceptions into warnings; an exit it lets through.
            _exit(f"error: {error if isinstance(error, ConfigError) else explain(error)}", EXIT_BAD_CONFIG)


def _refuse_completed(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"hydra.run.dir={folder} is a file; allowed: a new folder.")
    if (read_summary(folder) or {}).get("status") == COMPLETED:
        raise ConfigError(f"hydra.run.dir={folder} holds a completed run; allowed: a new folder.")


def job(cfg: DictConfig) -> None:
    """Hydra's task: one run in ``hydra.runtime.output_dir``."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if ValidateFirst.prepared:
        config, inputs = ValidateFirst.prepared.pop()
    else:
        # A job of a multirun: its folder exists already.
        try:
            _refuse_completed(folder)
            config = settings(cfg)
            inputs = prepare(config)
        except (ConfigError, OmegaConfBaseException):
            _remove_if_unused(folder)
            raise
    execute(config, inputs, folder)


def _remove_if_unused(folder: Path) -> None:
    """Remove what Hydra made for a job (of a multirun) that never began."""
    if not (folder / "summary.json").exists():
        for leftover in (folder / ".hydra", folder / "dnc.log"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


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
    tracker = Tracker.start(config.logger, folder, OmegaConf.to_container(OmegaConf.structured(config)), config.protocol.name)
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
    except BaseException as error:
        status = "failed" if isinstance(error, Exception) else "interrupted"
        summary = opening(run) | {"status": status, "error": f"{type(error).__name__}: {error}"}
        if record.rows:
            record.save()
        write_summary(folder, summary)
        raise
    finally:
        tracker.finish(summary, figures, failed=summary["status"] != COMPLETED)
    print_verdict(summary, Console())
    log.info("Record, figures and tensors: %s", folder)
    return summary


def _quiet_libraries() -> None:
    """Silence tips and device tables of Lightning; its warnings stay."""
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)

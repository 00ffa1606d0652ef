"""The command ``dnc`` = ``python -m pipeline``: validate, run a protocol, close the record."""

import os
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.arguments import check_folder, readable
from pipeline.config import Config, conf_folder, settings
from pipeline.errors import ConfigError, RunError
from pipeline.inputs import Inputs, prepare
from pipeline.messages import explain, one_line, register
from pipeline.record import COMPLETED, read_summary

EXIT_FAILED, EXIT_BAD_CONFIG, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


def main() -> None:
    """Console entry point; exits 0 done, 1 failed, 2 bad configuration, 130 interrupted, 143 terminated."""
    register()
    # Hydra then hands us its errors instead of printing them its own way and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.argv[1:] = readable(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="main")(job)()
    except KeyboardInterrupt:
        _exit("interrupted", EXIT_INTERRUPTED)
    except RunError as error:
        _exit(f"error: {error}", EXIT_FAILED)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        _exit(f"error: {explain(error)}", EXIT_BAD_CONFIG)
    except OSError as error:
        code = EXIT_FAILED if ValidateFirst.passed else EXIT_BAD_CONFIG
        _exit(f"error: {error.filename or 'a file'}: {error.strerror or error}.", code)
    except Exception as error:
        if ValidateFirst.passed:
            raise  # a bug of ours: the traceback is what is wanted
        _exit(f"error: {explain(error)}", EXIT_BAD_CONFIG)


def _exit(message: str, code: int) -> None:
    print(one_line(message), file=sys.stderr)
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(EXIT_TERMINATED)


class ValidateFirst(Callback):
    """Hydra callback: refuse a bad configuration, and data that are not right, before the run's folder is made."""

    prepared: ClassVar[list[tuple[Config, Inputs]]] = []
    passed: ClassVar[bool] = False  # a run has begun: what fails from now on is not the configuration

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave the validated configuration and its inputs in ``prepared`` for the job that follows."""
        try:
            _refuse_completed(Path(config.hydra.run.dir))
            checked = settings(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
            self.prepared.append((checked, prepare(checked)))
        except Exception as error:
            # Hydra turns a callback's exceptions into warnings; an exit it lets through.
            _exit(f"error: {explain(error)}", EXIT_BAD_CONFIG)


def _refuse_completed(folder: Path) -> None:
    check_folder(folder)
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
    # Imported late: Lightning takes seconds to load, and neither --help nor a bad configuration needs it.
    from pipeline.execution import execute

    ValidateFirst.passed = True
    execute(config, inputs, folder)


def _remove_if_unused(folder: Path) -> None:
    """Remove what Hydra made for a job (of a multirun) that never began."""
    if not (folder / "summary.json").exists():
        for leftover in (folder / ".hydra", folder / "dnc.log"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

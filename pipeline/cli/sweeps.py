"""Multiruns that go on: jobs whose run is completed are not run again, and ``resume=`` takes a multirun's folder."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from pipeline.cli.trust import check_kept
from pipeline.config.overrides import quoted
from pipeline.config.paths import PATHS, absolute_override, absolute_setting, elsewhere
from pipeline.runs.door import is_completed, refuse_others
from pipeline.runs.launches import launched_rank
from pipeline.runtime.children import own_package
from pipeline.runtime.errors import ConfigError
from pipeline.storage.reading import Unreadable, plain_yaml, yaml_of
from pipeline.storage.settings_files import kept_config, kept_hydra

log = logging.getLogger(__name__)

MULTIRUN = "multirun.yaml"
"""The file in which Hydra keeps what a multirun was called with."""
KEPT = {
    "hydra": {
        "overrides": {"task": [str], "hydra": [str]},
        "runtime": {"cwd": str, "config_sources": [{"path": str, "provider": str}]},
    }
}
"""What has to stand in it."""
NO_MATTER = ("logger", "record", "features", "trainer")
"""Sections that do not change a result, but for these settings:"""
BUT = ("trainer.devices", "trainer.num_nodes", "trainer.compile", "trainer.precision", "trainer.deterministic")
BUT += ("trainer.callbacks",)
RESUMED = re.compile(r"hydra/(launcher|sweeper)=|hydra\.sweep\.subdir=|hydra\.job\.chdir=|hydra\.launcher\.")
"""What of Hydra's own settings a resumed multirun takes over;"""
COMMANDS = re.compile(r"hydra\.launcher\.(setup|additional_parameters|srun_args|python|submitit_folder)\b")
"""of a launcher's, these can hold commands and have to be said again."""
PLAIN = re.compile(r"[\w.,:=/+@%${} -]*")


class UnfinishedOnly(Launcher):
    """Launches those jobs whose folder does not hold a completed run yet; stands before the chosen launcher."""

    def __init__(self, launcher: Launcher, config: DictConfig, hydra_context: Any) -> None:
        self._launcher, self._config, self._context = launcher, config, hydra_context
        self._file = Path(str(config.hydra.sweep.dir)) / MULTIRUN
        self._before = self._file.read_bytes() if self._file.is_file() else None

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Nothing: the launcher behind is set up already."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs that are left; those done count as completed.

        Raises:
            ConfigError: a job's folder holds a completed run of another configuration, or what is not ours; none was
                launched.
        """
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        try:
            done = {number for number, job in zip(numbers, job_overrides, strict=True) if self._is_done(job, number)}
        except ConfigError:
            self._restore()
            raise
        left = [number for number in numbers if number not in done]
        returned = {number: _completed(job) for number, job in zip(numbers, job_overrides, strict=True)}
        if left:
            jobs = [job_overrides[number - initial_job_idx] for number in left]
            here = type(self._launcher).__name__ == "BasicLauncher"  # its jobs tell of themselves
            watched = nullcontext() if here else _states_told(self._file.parent, len(left))
            with _environment(own_package()), watched:
                launched = self._launcher.launch(jobs, _Numbers(left))
            returned.update(zip(left, launched, strict=True))
        return [returned[number] for number in numbers]

    def _is_done(self, overrides: Sequence[str], number: int) -> bool:
        if not self._file.parent.is_dir():
            return False
        folder, config = self._composed(overrides, number)
        if not is_completed(folder):
            refuse_others(folder)  # before Hydra writes anything into it
            return False
        differs = _first_difference(folder, config)
        if differs:
            raise ConfigError(
                f"{folder} holds a completed run of another configuration ({differs}); allowed: a new hydra.sweep.dir, "
                "or the configuration of before."
            )
        log.info("%s is completed already, and skipped", folder)
        return True

    def _composed(self, overrides: Sequence[str], number: int) -> tuple[Path, dict[str, Any]]:
        """The folder and the configuration of a job, as Hydra makes them."""
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        current = HydraConfig.instance()
        before = current.cfg
        try:
            current.set_config(config)
            folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        finally:
            current.cfg = before
        task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        return folder, plain_yaml(OmegaConf.to_yaml(task))

    def _restore(self) -> None:
        """Undo what the sweeper has written of a multirun that is refused."""
        if self._before is None:
            self._file.unlink(missing_ok=True)
        else:
            self._file.write_bytes(self._before)


def _states_told(folder: Path, jobs: int) -> AbstractContextManager[None]:
    from pipeline.cli.sweep_end import states_told

    return states_told(folder, jobs)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class _Numbers(int):
    """The first of the numbers of some jobs. Launchers number a job by adding its place: this gives it its own."""

    def __new__(cls, numbers: Sequence[int]) -> "_Numbers":
        made = super().__new__(cls, numbers[0])
        made.numbers = list(numbers)
        return made

    def __add__(self, place: int) -> int:
        return self.numbers[place]


@contextmanager
def completed_jobs_skipped() -> Iterator[None]:
    """Within, Hydra's launchers do not run again what is completed.

    Not where torchrun or srun started this process beside others, who would not know.
    """
    if launched_rank() is not None:
        yield
        return
    plugins = Plugins.instance()
    make_launcher = plugins.instantiate_launcher
    sweeps: list[Path] = []

    def unfinished_only(hydra_context: Any, task_function: Any, config: DictConfig) -> Launcher:
        sweeps.append(Path(str(config.hydra.sweep.dir)))
        return UnfinishedOnly(make_launcher(hydra_context, task_function, config), config, hydra_context)

    plugins.instantiate_launcher = unfinished_only  # type: ignore[method-assign]
    try:
        yield
    finally:
        del plugins.instantiate_launcher
        if sweeps:
            from pipeline.cli.sweep_end import tell_sweep  # here: one run, and what is refused, need no tables

            for sweep in sweeps:
                tell_sweep(sweep)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a multirun."""
    return (folder / MULTIRUN).is_file()


def sweep_as_started(folder: Path, said: Sequence[str]) -> list[str]:
    """The arguments of the command that made a multirun's folder.

    Args:
        said: the arguments beside ``resume=``.

    Raises:
        ConfigError: the file that tells cannot be used, or asks for what could be a command.
    """
    where = folder / MULTIRUN
    try:
        kept = yaml_of(where, KEPT)["hydra"]
    except (FileNotFoundError, Unreadable) as error:
        raise ConfigError(
            f"resume={folder} is not the folder of a multirun ({error}); allowed: a folder with {MULTIRUN} as Hydra "
            "wrote it."
        ) from error
    task, hydra, place = kept["overrides"]["task"], kept["overrides"]["hydra"], Path(kept["runtime"]["cwd"])
    sources = kept["runtime"]["config_sources"]
    own = [source["path"] for source in sources if source["provider"] == "command-line"][:1]
    check_kept(folder, task, own)
    hydra = [override for override in hydra if RESUMED.match(override)]
    for override in hydra:
        key = override.partition("=")[0]
        commands = COMMANDS.match(override) or not PLAIN.fullmatch(override)
        if commands and not any(argument.partition("=")[0] == key for argument in said):
            raise ConfigError(
                f"{where} sets {key}, which can hold commands of any kind; allowed: {key}=... once more, after resume=."
            )
    hydra = [override for override in hydra if PLAIN.fullmatch(override) and not COMMANDS.match(override)]
    flags = ["--config-dir", *own] if own else []
    if elsewhere(place):
        task = [absolute_override(override, place) for override in task]
    return ["--multirun", *flags, *task, *hydra, f"hydra.sweep.dir={quoted(str(folder))}"]


def _completed(overrides: Sequence[str]) -> JobReturn:
    done = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    done.return_value = None
    return done


def _first_difference(folder: Path, config: Mapping[str, Any]) -> str | None:
    """A setting in which a job differs from the run in its folder, in words; None if they would give the same."""
    try:
        kept, hydra = kept_config(folder), kept_hydra(folder)
    except Unreadable as error:
        return str(error)
    place = ((hydra or {}).get("runtime") or {}).get("cwd")
    if kept is None or place is None:
        return "its .hydra is not whole"
    then, now = _flat(kept), _flat(config)
    for key in PATHS:
        then[key] = absolute_setting(key, then.get(key), Path(place))
        now[key] = absolute_setting(key, now.get(key), Path.cwd())
    for key, value in now.items():
        if key in then and then[key] != value and (key.partition(".")[0] not in NO_MATTER or key in BUT):
            return f"{key}={then[key]}, now {value}"
    return None


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """``{"head.width": 64, ...}`` of two levels."""
    flat: dict[str, Any] = {}
    for section, values in config.items():
        flat |= {f"{section}.{key}": value for key, value in values.items()} if isinstance(values, dict) else {}
        flat |= {} if isinstance(values, dict) else {section: values}
    return flat

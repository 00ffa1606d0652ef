"""The command ``scripts/reproduce``: run what is missing, draw, and say which claims hold."""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from pipeline.config.messages import explain
from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, EXIT_FAILED, Parser, exit_with
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.files import atomic
from pipeline.studies.engine.catalogue import STUDIES
from pipeline.studies.engine.claims import Claim
from pipeline.studies.engine.performing import Meter, launch, perform_all
from pipeline.studies.engine.publish import publish
from pipeline.studies.engine.runs import Job, Result, is_closed, kept_config
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study
from pipeline.studies.engine.tables import claims_frame, markdown, print_claims, save_csv
from pipeline.views.figures import save_figure

log = logging.getLogger(__name__)

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exits 0 done, 1 failed, 2 bad arguments, 130 interrupted, 143 terminated.

    Whether the claims hold does not change the exit code: a reproduction that finds a claim wrong has worked.
    """
    options = _parser().parse_intermixed_args(arguments)  # flags may stand between names
    if options.list:
        for study in STUDIES.values():
            sizes = "/".join(str(len(study.chosen(version))) for version in (FULL, CPU, QUICK))
            print(f"{study.name:<10} {study.group:<6} {sizes:>10} runs (full/cpu/quick)   {study.title}")
        return
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("pipeline").setLevel(logging.INFO)  # and not fontTools, when it writes a PDF
    signal.signal(signal.SIGTERM, _terminate)
    version = QUICK if options.quick else CPU if options.cpu else FULL
    try:
        studies, given = _chosen(options.names)
        # Settings of Hydra's launcher (hydra.launcher.partition=gpu) are no settings of a run.
        overrides = [override for override in given if not _is_hydras(override)]
        launching = [override for override in given if _is_hydras(override)]
        # A smaller version never replaces a larger one.
        out = options.out if version == FULL else options.out / version
        if options.launcher:
            _check_launch(studies, version, options.launcher)
        elif launching:
            raise ConfigError(f"{launching[0]} is a setting of a launcher; allowed: together with --launcher.")
        jobs = {study.name: _plan(study, overrides, out, version) for study in studies}
        out.mkdir(parents=True, exist_ok=True)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        exit_with(f"error: {explain(error)}", EXIT_BAD_ARGUMENTS)
    except OSError as error:
        exit_with(f"error: {error.filename}: {error.strerror}", EXIT_BAD_ARGUMENTS)
    try:
        if options.launcher:
            launch(studies, jobs, [*overrides, *launching], out, options.launcher)
            jobs = {study.name: _found(jobs[study.name]) for study in studies}
        claims = _reproduce(studies, jobs, out, options.force, options.jobs)
    except KeyboardInterrupt:
        exit_with("interrupted; finished runs are kept and will not be repeated", EXIT_INTERRUPTED)
    except RunError as error:
        exit_with(f"error: {error}", EXIT_FAILED)
    if options.docs:
        publish(out, options.docs, jobs)
    terminal = Console()
    print_claims(claims_frame(claims), terminal if terminal.is_terminal else Console(width=150))


def _parser() -> argparse.ArgumentParser:
    groups = {group: [s.name for s in STUDIES.values() if s.group == group] for group in _groups()}
    parser = Parser(
        prog="reproduce",
        description="Run what is missing, draw the figures, and print which claims hold.",
        epilog="Groups: " + "; ".join(f"{group} = {' '.join(names)}" for group, names in groups.items()),
    )
    parser.add_argument("names", nargs="*", help="figures or groups; key=value changes a setting of all runs")
    parser.add_argument("--list", action="store_true", help="list the figures and stop")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a few minutes: fewer runs, seeds, steps; kept in OUT/quick")
    size.add_argument(
        "--cpu", action="store_true", help="what two cores can do in about two hours of real networks; kept in OUT/cpu"
    )
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="runs at once (default: %(default)s)")
    parser.add_argument(
        "--launcher",
        metavar="NAME",
        help="submit all runs of the full version through this Hydra launcher (basic, submitit_slurm, ...), set by "
        "hydra.launcher.KEY=VALUE, then draw and judge",
    )
    parser.add_argument("--force", action="store_true", help="repeat finished runs")
    parser.add_argument("--out", type=Path, default=Path("outputs/reproduction"), help="folder (default: %(default)s)")
    parser.add_argument("--docs", type=Path, help="also copy the tables and the figures, made small, to this folder")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not an integer >= 1")
    return int(text)


def _groups() -> list[str]:
    return list(dict.fromkeys(study.group for study in STUDIES.values()))


def _chosen(names: Sequence[str]) -> tuple[list[Study], list[str]]:
    """The studies named, in the order of the catalogue, and the overrides among the names."""
    overrides = [name for name in names if "=" in name]
    wanted = [name for name in names if "=" not in name]
    allowed = [*_groups(), *STUDIES]
    unknown = [name for name in wanted if name not in allowed]
    if unknown or not wanted:
        what = f"{unknown[0]} is not a figure" if unknown else "no figure named"
        raise ConfigError(f"{what}; allowed: {', '.join(allowed)}.")
    return [study for study in STUDIES.values() if {study.name, study.group} & set(wanted)], overrides


def _is_hydras(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _plan(study: Study, overrides: Sequence[str], out: Path, version: str) -> list[Job]:
    """All runs of a study with their configurations, validated before the first one starts."""
    changed = {override.partition("=")[0].lstrip("+") for override in overrides}
    swept = {override.partition("=")[0] for point in study.points for override in point.overrides}
    if clash := sorted((changed & swept) - {"descent.steps", "descent.seeds"}):
        raise ConfigError(f"{clash[0]} is what {study.name} varies; allowed: any other setting.")
    folder = out / "runs" / study.name
    return _found([Job.plan(study.name, point, overrides, folder / point.name) for point in study.chosen(version)])


def _check_launch(studies: Sequence[Study], version: str, launcher: str) -> None:
    """Only sweeps can be submitted, and only through a launcher that is installed."""
    fixed = [study.name for study in studies if not study.grids]
    if fixed:
        raise ConfigError(f"--launcher={launcher}: {fixed[0]} is no sweep; allowed: studies of real networks (real).")
    if version != FULL:
        raise ConfigError(f"--launcher={launcher} submits the full version; allowed: without --quick and --cpu.")


def _found(jobs: Sequence[Job]) -> list[Job]:
    """The jobs in the folders where a launcher, or somebody, ran them; those not finished anywhere in their own."""
    own = {job.folder for job in jobs}
    others = {path.parent for folder in {job.folder.parent for job in jobs} for path in folder.glob("*/summary.json")}
    closed = {
        folder: config for folder in sorted(others - own) if is_closed(folder) and (config := kept_config(folder))
    }
    return [job.found_in(closed) for job in jobs] if closed else list(jobs)


def _reproduce(
    studies: Sequence[Study], jobs: Mapping[str, list[Job]], out: Path, force: bool, workers: int
) -> dict[str, list[Claim]]:
    """Run, draw and judge study by study, so that an interruption leaves whole figures behind."""
    started = time.monotonic()
    everything = [job for study in studies for job in jobs[study.name]]
    wanted = {job.folder for job in everything if force or not job.is_finished}
    meter = Meter(len(wanted), len(everything))
    claims = {}
    for study in studies:
        perform_all([job for job in jobs[study.name] if job.folder in wanted], workers, meter)
        claims[study.name] = _conclude(study, [job.result() for job in jobs[study.name]], out)
    log.info("Runs, figures and tables: %s  (%.0f s)", out, time.monotonic() - started)
    return claims


def _conclude(study: Study, results: Sequence[Result], out: Path) -> list[Claim]:
    """Write the figures and tables of a study and return its claims."""
    for name, figure in study.draw(results).items():
        save_figure(figure, out / "figures", name)
    for name, table in study.tables(results).items():
        save_csv(table, out / "tables" / f"{name}.csv")
    claims = study.claims(results)
    table = claims_frame({study.name: claims})
    save_csv(table, out / "tables" / f"{study.name}_claims.csv")
    with atomic(out / "tables" / f"{study.name}_claims.md") as path:
        path.write_text(markdown(table.drop(columns="study").rename(columns={"expected": study.expectation})))
    return claims


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)

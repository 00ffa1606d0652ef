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

from pipeline.errors import ConfigError
from pipeline.figures import save_figure
from pipeline.messages import explain
from pipeline.record import atomic
from pipeline.reproduction.catalogue import STUDIES, Study
from pipeline.reproduction.claims import Claim
from pipeline.reproduction.publish import publish
from pipeline.reproduction.runs import Job, Result
from pipeline.reproduction.tables import claims_frame, layers_table, markdown, print_claims, save_csv, seeds_table

log = logging.getLogger(__name__)

EXIT_BAD_ARGUMENTS, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 130, 143


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        _exit(f"error: {message}.", EXIT_BAD_ARGUMENTS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exits 0 done, 1 failed, 2 bad arguments, 130 interrupted, 143 terminated.

    Whether the claims hold does not change the exit code: a reproduction that finds a claim wrong has worked.
    """
    options = _parser().parse_intermixed_args(arguments)  # flags may stand between names
    if options.list:
        for study in STUDIES.values():
            print(f"{study.name:<10} {study.group:<6} {len(study.points):>3} runs   {study.title}")
        return
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("pipeline").setLevel(logging.INFO)  # and not fontTools, when it writes a PDF
    signal.signal(signal.SIGTERM, _terminate)
    try:
        studies, overrides = _chosen(options.names)
        # A quick run never replaces a full one.
        out = options.out / "quick" if options.quick else options.out
        jobs = {study.name: _plan(study, overrides, out, options.quick) for study in studies}
        out.mkdir(parents=True, exist_ok=True)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        _exit(f"error: {explain(error)}", EXIT_BAD_ARGUMENTS)
    except OSError as error:
        _exit(f"error: {error.filename}: {error.strerror}", EXIT_BAD_ARGUMENTS)
    try:
        claims = _reproduce(studies, jobs, out, options.force)
    except KeyboardInterrupt:
        _exit("interrupted; finished runs are kept and will not be repeated", EXIT_INTERRUPTED)
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
    parser.add_argument(
        "--quick", action="store_true", help="a few minutes: fewer runs, seeds, steps; kept in OUT/quick"
    )
    parser.add_argument("--force", action="store_true", help="repeat finished runs")
    parser.add_argument("--out", type=Path, default=Path("outputs/reproduction"), help="folder (default: %(default)s)")
    parser.add_argument("--docs", type=Path, help="also copy the tables and the figures, made small, to this folder")
    return parser


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


def _plan(study: Study, overrides: Sequence[str], out: Path, quick: bool) -> list[Job]:
    """All runs of a study with their configurations, validated before the first one starts."""
    changed = {override.partition("=")[0].lstrip("+") for override in overrides}
    swept = {override.partition("=")[0] for point in study.points for override in point.overrides}
    if clash := sorted((changed & swept) - {"descent.steps"}):
        raise ConfigError(f"{clash[0]} is what {study.name} varies; allowed: any other setting.")
    return [
        Job.plan(study.name, point, [*shrunk, *overrides], out / "runs" / study.name / point.name)
        for point, shrunk in study.chosen(quick)
    ]


def _reproduce(
    studies: Sequence[Study], jobs: Mapping[str, list[Job]], out: Path, force: bool
) -> dict[str, list[Claim]]:
    """Run, draw and judge study by study, so that an interruption leaves whole figures behind."""
    started, total, done = time.monotonic(), sum(map(len, jobs.values())), 0
    claims = {}
    for study in studies:
        for job in jobs[study.name]:
            done += 1
            reused = job.is_finished and not force
            descent = job.config.descent
            what = "finished before" if reused else f"{descent.seeds} seeds, {descent.steps:,} steps"
            elapsed = time.monotonic() - started
            log.info("[%d/%d, %.0f s] %s %s: %s", done, total, elapsed, study.name, job.point.name, what)
            if not reused:
                job.perform()
        claims[study.name] = _conclude(study, [job.result() for job in jobs[study.name]], out)
    log.info("Runs, figures and tables: %s  (%.0f s)", out, time.monotonic() - started)
    return claims


def _conclude(study: Study, results: Sequence[Result], out: Path) -> list[Claim]:
    """Write the figures and tables of a study and return its claims."""
    for name, figure in study.draw(results).items():
        save_figure(figure, out / "figures", name)
    save_csv(seeds_table(results), out / "tables" / f"{study.name}.csv")
    save_csv(layers_table(results), out / "tables" / f"{study.name}_layers.csv")
    claims = study.claims(results)
    table = claims_frame({study.name: claims})
    save_csv(table, out / "tables" / f"{study.name}_claims.csv")
    with atomic(out / "tables" / f"{study.name}_claims.md") as path:
        path.write_text(markdown(table.drop(columns="study")))
    return claims


def _exit(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_TERMINATED)

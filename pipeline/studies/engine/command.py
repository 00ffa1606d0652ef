"""The command ``scripts/reproduce``: run what is missing, draw, and say which claims hold."""

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from pipeline.config.messages import explain
from pipeline.config.overrides import readable_override
from pipeline.runtime.command_line import EXIT_BAD_ARGUMENTS, EXIT_FAILED, Parser, exit_with
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.files import remove_temporaries
from pipeline.runtime.interruption import Interrupted, interruption
from pipeline.runtime.lock import one_at_a_time
from pipeline.runtime.suggestions import did_you_mean
from pipeline.studies.engine.claims import Claim, reasoned
from pipeline.studies.engine.folders import folder_of
from pipeline.studies.engine.jobs import Job
from pipeline.studies.engine.own_file import is_own
from pipeline.studies.engine.own_study import own_study
from pipeline.studies.engine.performing import Meter, launch, perform_all
from pipeline.studies.engine.planning import by_folder, found, planned
from pipeline.studies.engine.publish import publish
from pipeline.studies.engine.results import Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, VERSIONS, Study, studies
from pipeline.studies.engine.tables import claims_frame, print_claims, print_failures, save_claims, save_csv
from pipeline.views import style
from pipeline.views.figures import save_figure
from pipeline.views.printing import add_option, spelled_out

log = logging.getLogger(__name__)

TURNS = ".dnc.drawing"
"""Stands in the folder for the turns that processes take at writing figures and tables."""


@dataclass(frozen=True)
class Plan:
    """What is asked for: studies in their order, their runs, where they lie, and how they are made.

    varied: settings of the studies are changed, so that what is known of their own runs need not be so here. paper: the
    medium that figures are also drawn for.
    """

    studies: Sequence[Study]
    jobs: Mapping[str, list[Job]]
    out: Path
    workers: int
    repeat_before: float | None
    varied: bool = False
    paper: str | None = None


@dataclass(frozen=True)
class Conclusion:
    """What came out of a study: its claims with their reasons, and why runs failed, by name."""

    claims: Sequence[Claim]
    failures: Mapping[str, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point; exits 0 done, 1 failed, 2 bad arguments, 130 interrupted, 143 terminated.

    Whether the claims hold does not change the exit code: a reproduction that finds a claim wrong has worked.
    """
    interruption.listen()
    try:
        interruption.exit_if_signalled()
        given = spelled_out(sys.argv[1:] if arguments is None else arguments)
        options = _parser().parse_intermixed_args(given)  # flags may stand between names
        if options.list:
            _list()
        else:
            _reproduce(options)
    except Interrupted as stop:
        exit_with("interrupted; what is done is kept, and the same command goes on", stop.exit_code)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        exit_with(f"error: {explain(error)}", EXIT_BAD_ARGUMENTS)
    except RunError as error:
        exit_with(f"error: {error} What is finished is kept, and the same command goes on.", EXIT_FAILED)
    except OSError as error:
        exit_with(f"error: {error.filename or 'a file'}: {error.strerror or error}", EXIT_FAILED)


def _list() -> None:
    for study in studies().values():
        sizes = "/".join(str(len(study.chosen(version))) for version in VERSIONS)
        print(f"{study.name:<10} {study.group:<6} {sizes:>10} runs ({'/'.join(VERSIONS)})   {study.title}")
    print("my.yaml    own    a study of your own, in ten lines of a file: docs/recipes.md")


def _parser() -> Parser:
    groups = {group: [s.name for s in studies().values() if s.group == group] for group in _groups()}
    parser = Parser(
        prog="reproduce",
        description="Run what is missing, draw the figures, and print which claims hold.",
        epilog="Groups: " + "; ".join(f"{group} = {' '.join(names)}" for group, names in groups.items()),
    )
    parser.add_argument(
        "names",
        nargs="*",
        help="studies or groups, or a file of your own (my.yaml: docs/recipes.md); key=value changes a setting of all "
        "runs, which are then kept in OUT/key=value",
    )
    parser.add_argument("--list", action="store_true", help="list the studies and stop")
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
    add_option(parser, "also draw the figures for print, to OUT/figures/MEDIUM")
    parser.add_argument("--force", action="store_true", help="repeat finished runs")
    parser.add_argument("--out", type=Path, default=Path("outputs/reproduction"), help="folder (default: %(default)s)")
    parser.add_argument("--docs", type=Path, help="also copy the tables and the figures, made small, to this folder")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not an integer >= 1")
    return int(text)


def _reproduce(options: argparse.Namespace) -> None:
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("pipeline").setLevel(logging.INFO)  # and not fontTools, when it writes a PDF
    version = QUICK if options.quick else CPU if options.cpu else FULL
    chosen, given = _chosen(options.names)
    # Settings of Hydra's launcher (hydra.launcher.partition=gpu) are no settings of a run.
    overrides = [readable_override(override, sweeping=False) for override in given if not _is_hydras(override)]
    launching = [override for override in given if _is_hydras(override)]
    out = folder_of(options.out, version, overrides)
    if options.launcher:
        _check_launch(chosen, version, options.launcher)
    elif launching:
        raise ConfigError(f"{launching[0]} is a setting of a launcher; allowed: together with --launcher.")
    unvaried = folder_of(options.out, version, ())
    jobs = {study.name: planned(study, overrides, out, unvaried, version, force=options.force) for study in chosen}
    _make(out)
    varied = out != unvaried
    plan = Plan(chosen, jobs, out, options.jobs, time.time() if options.force else None, varied, options.paper)
    if options.launcher:
        launch(chosen, jobs, [*overrides, *launching], out, options.launcher)
        plan = replace(plan, jobs={name: found(own) for name, own in jobs.items()})
    concluded = _carry_out(plan)
    if options.docs:
        publish(out, options.docs, jobs)
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=150)
    print_failures({name: each.failures for name, each in concluded.items()}, console)
    print_claims(claims_frame({name: each.claims for name, each in concluded.items()}), console)


def _groups() -> list[str]:
    return list(dict.fromkeys(study.group for study in studies().values()))


def _chosen(names: Sequence[str]) -> tuple[list[Study], list[str]]:
    """The studies named, in their order, and the overrides among the names."""
    overrides = [name for name in names if "=" in name]
    own = [own_study(Path(name)) for name in names if is_own(name)]
    wanted = [name for name in names if "=" not in name and not is_own(name)]
    allowed = [*_groups(), *studies()]
    unknown = [name for name in wanted if name not in allowed]
    if len({study.name for study in own}) < len(own):
        raise ConfigError("two files have one name; allowed: each study once.")
    if unknown or not (wanted or own):
        what = f"{unknown[0]} is not a study" if unknown else "no study named"
        hint = did_you_mean(unknown[0], allowed) if unknown else ""
        raise ConfigError(f"{what}; allowed: {', '.join(allowed)}, or a file of your own, my.yaml{hint}.")
    return [study for study in studies().values() if {study.name, study.group} & set(wanted)] + own, overrides


def _is_hydras(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out: {error.filename}: {error.strerror}; allowed: a folder that can be written."
        ) from error


def _check_launch(chosen: Sequence[Study], version: str, launcher: str) -> None:
    """Only multiruns can be submitted, and only through a launcher that is installed."""
    fixed = [study.name for study in chosen if not study.grids]
    if fixed:
        raise ConfigError(f"--launcher={launcher}: {fixed[0]} has no grids; allowed: studies of real networks (real).")
    if version != FULL:
        raise ConfigError(f"--launcher={launcher} submits the full version; allowed: without --quick and --cpu.")


def _carry_out(plan: Plan) -> dict[str, Conclusion]:
    """Run, draw and judge study by study, so that an interruption leaves whole figures behind."""
    started = time.monotonic()
    everything = {study.name: by_folder(plan.jobs[study.name]) for study in plan.studies}
    wanted = {
        name: [job for job in jobs if plan.repeat_before is not None or not job.is_finished]
        for name, jobs in everything.items()
    }
    meter = Meter(*(sum(map(len, jobs.values())) for jobs in (wanted, everything)))
    concluded = {}
    for study in plan.studies:
        jobs = plan.jobs[study.name]
        perform_all([job.order(plan.repeat_before) for job in wanted[study.name]], plan.workers, meter)
        results = [job.result() for job in jobs]
        claims = _conclude(study, results, plan)
        concluded[study.name] = Conclusion(claims, {r.point.name: r.failure for r in results if not r.completed})
    log.info("Runs, figures and tables: %s  (%.0f s)", plan.out, time.monotonic() - started)
    return concluded


def _conclude(study: Study, results: Sequence[Result], plan: Plan) -> list[Claim]:
    """Write the figures and tables of a study and return its claims."""
    out = plan.out
    with one_at_a_time(out / TURNS):  # nobody else's temporary files lie there meanwhile
        remove_temporaries((out / "figures", out / "figures" / (plan.paper or ""), out / "tables"))
        _write_figures_and_tables(study, results, out, plan.paper)
        claims = reasoned(study.claims(results), {} if plan.varied else study.reasons)
        save_claims(study.name, claims, study.measurements(results), study.expectation, out / "tables")
    return claims


def _write_figures_and_tables(study: Study, results: Sequence[Result], out: Path, paper: str | None) -> None:
    for medium in filter(None, (style.SCREEN.name, paper)):
        with style.drawn_for(medium):
            for name, figure in study.draw(results).items():
                save_figure(figure, out / "figures" / (medium if medium == paper else ""), name)
    for name, table in study.tables(results).items():
        save_csv(table, out / "tables" / f"{name}.csv")

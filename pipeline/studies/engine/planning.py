"""From the points of a study to the runs that are to be made: validated, found where they were made, each one once."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pipeline.runtime.errors import ConfigError
from pipeline.studies.engine.jobs import Job, closed_runs, decisive, essence
from pipeline.studies.engine.study import Study

MAY_CHANGE = {"descent.steps", "descent.seeds"}
"""Settings that a study varies with another one, so that the command line may set them for all runs."""


def planned(
    study: Study, overrides: Sequence[str], out: Path, unvaried: Path, version: str, *, force: bool = False
) -> list[Job]:
    """All runs of a study with their configurations, validated before the first one starts.

    Points that come to the same configuration are one; those that differ only in what their protocol does not look at
    share a run, which lies in the folder of the first of them.

    Raises:
        ConfigError: what is to be changed is what the study varies, or a finished run is in the way.
    """
    changed = {override.partition("=")[0].lstrip("+") for override in overrides}
    swept = {override.partition("=")[0] for point in study.points for override in point.overrides}
    if clash := sorted((changed & swept) - MAY_CHANGE):
        raise ConfigError(f"{clash[0]} is what {study.name} varies; allowed: any other setting.")
    own, experiment = Path("runs", study.name), study.name if study.based else None
    try:
        jobs = [Job.plan(experiment, point, overrides, out / own / point.name) for point in study.chosen(version)]
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        told = study.placed(error)
        if told is error:
            raise
        raise told from error
    jobs = shared(found(distinct(jobs), unvaried / own))
    if study.kept_aside and not force:
        jobs = [_aside(job) for job in jobs]
    for job in jobs:
        if not force and (other := job.in_the_way):
            raise ConfigError(
                f"{job.folder} holds a finished run of another configuration ({other}); allowed: another --out, or "
                "--force, which replaces it."
            )
    return jobs


def found(jobs: Sequence[Job], unvaried: Path | None = None) -> list[Job]:
    """The jobs in the folders where they were made; those not finished anywhere in their own.

    A launcher makes folders of its own beside theirs, and variations once lay in ``unvaried``, by the same names.
    """
    own = {job.folder for job in jobs}
    beside = {path.parent for folder in {job.folder.parent for job in jobs} for path in folder.glob("*/summary.json")}
    there = {unvaried / job.point.name for job in jobs} if unvaried else set()
    closed = closed_runs(sorted((beside | there) - own))
    return [job.found_in(closed) for job in jobs] if closed else list(jobs)


def distinct(jobs: Sequence[Job]) -> list[Job]:
    """Of jobs of equal configurations the first."""
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(_key(essence(job.config)), job)
    return list(first.values())


def shared(jobs: Sequence[Job]) -> list[Job]:
    """The jobs; those from which the same comes out have the folder and the configuration of one of them."""
    made: dict[str, Job] = {}
    keys = [_key(decisive(job.config)) for job in jobs]
    for key, job in zip(keys, jobs, strict=True):
        if key not in made or (job.is_finished and not made[key].is_finished):
            made[key] = job
    pairs = zip(keys, jobs, strict=True)
    return [job if job.is_finished else replace(made[key], point=job.point) for key, job in pairs]


def by_folder(jobs: Sequence[Job]) -> list[Job]:
    """Of the jobs that share a run the first."""
    first: dict[Path, Job] = {}
    for job in jobs:
        first.setdefault(job.folder, job)
    return list(first.values())


def _aside(job: Job) -> Job:
    """The job in a folder beside its own, if a finished run of another configuration is there."""
    if job.in_the_way is None:
        return job
    name = f"{job.folder.name}-{sha256(_key(essence(job.config)).encode()).hexdigest()[:8]}"
    return replace(job, folder=job.folder.with_name(name))


def _key(values: dict[str, Any]) -> str:
    return repr(sorted(values.items()))

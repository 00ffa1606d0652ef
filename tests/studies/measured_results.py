"""Results of measured networks made by hand: a point's own configuration, and curves of metrics as given."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.storage.record import COMPLETED, Row, write_summary
from pipeline.studies.engine.jobs import Job
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import Study

Curves = Mapping[tuple[str, str] | None, Mapping[str, Sequence[float]]]
"""Values at epochs 0, 1, ... of metrics of a place, or of the whole network."""


def result_of(folder: Path, study: Study, point: Point, curves: Curves, **summary: object) -> Result:
    """A finished run of a point."""
    job = Job.plan(study.name, point, (), folder / point.name)
    job.folder.mkdir(parents=True)
    rows = [
        Row("backbone", epoch, job.config.seed, *(place or ("", "")), metric, value)
        for place, metrics in curves.items()
        for metric, values in metrics.items()
        for epoch, value in enumerate(values)
    ]
    pd.DataFrame(rows, columns=Row._fields).to_csv(job.folder / "record.csv", index=False)
    write_summary(job.folder, {"status": COMPLETED, "seeds": [job.config.seed]} | summary)
    return Result(point, job.config, job.folder)


def point_of(study: Study, version: str, name: str) -> Point:
    """The point of this name."""
    (found,) = [point for point in study.chosen(version) if point.name == name]
    return found

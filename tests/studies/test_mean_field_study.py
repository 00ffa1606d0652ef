"""Mean field: what is low, what follows, and who is balanced."""

import pandas as pd
import pytest
from readable import drawn_for
from study_results import one

from pipeline.storage.record import COMPLETED, Row, write_summary
from pipeline.studies.engine.jobs import Job
from pipeline.studies.engine.results import Result
from pipeline.studies.engine.study import FULL, QUICK
from pipeline.studies.mean_field import MEASURES, STUDY, claims, draw, following, measurements, tables

FALLING = {"nc1_wm": (0.9, 0.4, 0.05), "train_loss": (0.5, 0.2, 0.01), "gradient_norm": (0.3, 0.2, 0.02)}


def _run(folder, kind, balance=0.6, **curves):
    (point,) = (point for point in STUDY.chosen(QUICK) if point.name == kind)
    job = Job.plan(STUDY.name, point, (), folder / kind)
    job.folder.mkdir(parents=True)
    values = FALLING | {"balancedness": (0.9, 0.8, balance)} | curves
    values |= {"test_accuracy": (0.3, 0.8, 0.9)}
    rows = [
        Row("mean_field", epoch, seed, "", "", metric, value)
        for seed in (0, 1)
        for metric, series in values.items()
        for epoch, value in enumerate(series)
    ]
    rows += [Row("mean_field", 2, seed, "", "", "stationary_nc1_wm", 0.01) for seed in (0, 1)]
    pd.DataFrame(rows, columns=Row._fields).to_csv(job.folder / "record.csv", index=False)
    write_summary(job.folder, {"status": COMPLETED, "seeds": [0, 1]})
    return Result(point, job.config, job.folder)


def test_each_claim_holds_where_it_should_and_fails_where_it_should_not(tmp_path):
    runs = [_run(tmp_path, "frozen"), _run(tmp_path, "trained", 0.1), _run(tmp_path, "noisy", 0.2)]
    judged = claims(runs)
    assert len(judged) == 12 and all(claim.holds for claim in judged)
    changed = {"nc1_wm": (0.9, 0.4, 0.2), "gradient_norm": (0.1, 0.2, 0.15)}
    judged = claims([_run(tmp_path / "b", "frozen", 0.3, **changed), _run(tmp_path / "b", "trained", 0.35)])
    assert not one(judged, "W frozen: NC1 at the end is low").holds
    assert one(judged, "W frozen: NC1 follows the loss").holds
    assert not one(judged, "W frozen: NC1 follows the norm").holds
    assert not one(judged, "W frozen: unbalanced").holds
    assert not one(judged, "W frozen: further from balance").holds
    assert not any("noise: further" in claim.claim for claim in judged)


def test_following_is_rank_correlation(tmp_path):
    made = _run(tmp_path, "frozen", train_loss=(0.5, 0.01, 0.2))
    assert following(made, "train_loss") == [pytest.approx(0.5)] * 2


def test_figure_table_and_measurements(tmp_path):
    runs = [_run(tmp_path, kind) for kind in ("frozen", "trained", "noisy")]
    (figure,) = drawn_for("column", lambda: draw(runs)).values()
    assert [len(axes.lines) for axes in figure.axes] == [3, 3, 3, 5]
    assert set(MEASURES) < set(tables(runs)["mean_field"].metric)
    told = measurements(runs)
    assert len(told) == 6 and told[0].measured.startswith("median 0.01")


def test_the_full_version_is_of_the_papers_size():
    points = STUDY.chosen(FULL)
    assert [point.name for point in points] == ["frozen", "trained", "noisy"]
    assert all({"protocol.neurons=6272", "data.samples_per_class=10000"} < {*point.overrides} for point in points)

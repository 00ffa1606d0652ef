"""Shallow: thresholds between points, and shares of draws against the exact probability."""

import math

import pandas as pd
import pytest
from readable import drawn_for
from study_results import one

from pipeline.config import Config, ProtocolConfig
from pipeline.data.settings import DataConfig
from pipeline.storage.record import Row
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.shallow import claims, draw, table, threshold
from pipeline.theory import attainability_probability

DRAWS = 100


@pytest.fixture
def made(tmp_path):
    def make(dim, snr, share, accuracy=math.nan):
        folder = tmp_path / f"{dim}-{snr}"
        folder.mkdir()
        rows = []
        for seed in range(DRAWS):
            attainable = float(seed < round(share * DRAWS))
            rows.append(Row("shallow", 0, seed, "class_0", "", "attainable", attainable))
            rows.append(Row("shallow", 0, seed, "", "", "attainable", attainable))
            rows.append(Row("shallow", 0, seed, "", "", "accuracy", accuracy))
        pd.DataFrame(rows, columns=Row._fields).to_csv(folder / "record.csv", index=False, na_rep="nan")
        data = DataConfig(name="mixture", samples_per_class=20)
        data.dim, data.num_classes, data.snr = dim, 2, float(snr)
        return Result(Point(folder.name, ()), Config(data=data, protocol=ProtocolConfig(name="shallow")), folder)

    return make


def test_a_threshold_is_read_between_points_and_is_none_where_shares_do_not_cross():
    points = pd.DataFrame({"dim": [30, 28, 32], "attainable": [0.4, 0.0, 0.8]})
    assert threshold(points) == (pytest.approx(30.5), 2)
    level, gap = threshold(points[points.dim < 32])
    assert math.isnan(level) and gap == math.inf


def test_shares_without_signal_are_judged_by_the_exact_probability(made):
    exact = attainability_probability(2, 20, 28)
    near, far = made(28, 0, exact), made(30, 0, exact)
    assert one(claims([near]), "no signal").holds and not one(claims([near, far]), "no signal").holds
    assert table([near]).exact.tolist() == [exact] and table([made(28, 2, 1)]).exact.isna().all()


def test_ends_and_thresholds(made):
    silent = [made(19, 0, 0), made(30, 0, 0.3), made(32, 0, 0.6), made(40, 0, 1)]
    loud = [made(19, 8, 0), made(21, 8, 0.3), made(22, 8, 0.7)]
    judged = claims([*silent, *loud])
    assert one(judged, "d < n").holds and one(judged, "d >= N").holds and one(judged, "falls with the signal").holds
    assert one(judged, "signal 0: d at which").measured == "31.3" and one(judged, "signal 0: d at which").holds
    wrong = claims([made(18, 0, 0.01), *loud])
    assert not one(wrong, "d < n").holds and one(wrong, "d >= N").holds is None


def test_accuracy_is_the_signals_and_collapse_is_everywhere(made):
    wide = [made(60, 0, 1, 0.5), made(60, 2, 1, 0.74), made(60, 8, 1, 1.0)]
    judged = claims(wide)
    assert one(judged, "accuracies from chance to 1").holds and one(judged, "accuracy at signals").holds
    assert not one(claims([*wide, made(60, 4, 1, 0.8)]), "accuracy at signals").holds
    results = [*wide, made(30, 0, 0.5), made(40, 0, 1)]
    assert set(drawn_for("column", lambda: draw(results))) == {"shallow", "shallow_accuracy"}

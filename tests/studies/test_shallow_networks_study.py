"""Trained shallow networks: judged against attainability, over widths, layers and images."""

import pandas as pd
import pytest
from readable import drawn_for
from study_results import one

from pipeline.config import Config, HeadConfig, ProtocolConfig
from pipeline.data.settings import DataConfig
from pipeline.storage.record import Row
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.shallow_networks import claims, draw, table


@pytest.fixture
def made(tmp_path):
    def make(dim, gap, attainable, hidden=(16,), loss="mse", accuracy=0.8, data="mixture", rank=40.0):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        values = {"gap": gap, "dnc1": max(gap, 1e-9), "reached": 0.5 * (gap <= 1e-3), "accuracy": accuracy}
        rows = [Row("shallow", 0, 0, "network", "", name, value) for name, value in values.items()] if hidden else []
        whole = {"attainable": float(attainable), "rank": rank, "accuracy": 0.7}
        rows += [Row("shallow", 0, 0, "", "", name, value) for name, value in whole.items()]
        pd.DataFrame(rows, columns=Row._fields).to_csv(folder / "record.csv", index=False)
        settings = DataConfig(name=data, samples_per_class=20)
        settings.dim = dim
        protocol = ProtocolConfig(name="shallow", hidden=list(hidden) or None)
        return Result(
            Point(folder.name, ()), Config(data=settings, head=HeadConfig(loss=loss), protocol=protocol), folder
        )

    return make


def test_reaching_the_bound_exactly_where_it_is_attainable_holds(made):
    runs = [
        made(dim, 1e-5 if can else 0.2, can, (width,)) for width in (2, 16) for dim, can in ((20, False), (34, True))
    ]
    runs += [made(3, 0.3, False, (4, 16)), made(3, 1e-6, False, (64, 16))]
    runs += [made(784, 0, True, (), data="mnist", rank=40.0), made(784, 0, False, (), data="mnist", rank=30.0)]
    judged = claims(runs)
    assert len(judged) == 9 and all(claim.holds for claim in judged)
    assert table(runs)["rank"].tolist()[-2:] == [40, 30]
    (figure,) = drawn_for("column", lambda: draw(runs)).values()
    assert len(figure.axes) == 6


def test_what_is_missed_or_reached_against_expectation_fails(made):
    missed, below = made(34, 0.01, True), made(20, -1e-3, False, (2,))
    collapsed, width = made(34, 1e-5, True, (2,), accuracy=1.0), made(20, 0.1, False)
    judged = claims([missed, below, collapsed, width, made(3, 1e-5, False, (4, 16))])
    for part in ("below the bound", "error, attainable: best", "not attainable: best", "width", "fewer units"):
        assert not one(judged, part).holds
    assert not one(claims([missed, collapsed]), "test accuracy").holds
    assert not one(claims([made(784, 0, False, (), data="mnist")]), "pairs of image classes").holds

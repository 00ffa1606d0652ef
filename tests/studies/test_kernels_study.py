"""Kernels: orders that fail in one draw fail, and kinds of data are judged apart."""

import pandas as pd
from readable import drawn_for
from study_results import one

from pipeline.config import Config, ProtocolConfig
from pipeline.data.settings import DataConfig
from pipeline.storage.record import Row
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.kernels import SEEN, claims, draw, tables

HELD = {"inputs": -1.2, "relu_nngp": -0.9, "relu_ntk": -0.6, "erf_nngp": -1.0, "erf_ntk": -0.7, "erf_adaptive": -1.1}


def made(folder, name, draws, dim=8, classes=2):
    folder = folder / name
    folder.mkdir()
    rows = [
        Row("kernels", 0, seed, kernel, "", "dnc1", 10**value)
        for seed, values in enumerate(draws)
        for kernel, value in values.items()
    ]
    pd.DataFrame(rows, columns=Row._fields).to_csv(folder / "record.csv", index=False)
    data = DataConfig(name="mixture", samples_per_class=64)
    data.dim, data.num_classes = dim, classes
    return Result(Point(name, ()), Config(data=data, protocol=ProtocolConfig(name="kernels")), folder)


def test_an_order_holds_if_it_does_in_every_draw_and_kinds_of_data_are_apart(tmp_path):
    two = made(tmp_path, "two-dim_8", [HELD, HELD])
    four = made(tmp_path, "four-dim_8", [HELD, HELD | {"erf_adaptive": -0.99}], classes=4)
    judged = claims([two, four])
    assert one(judged, "(b) adapted kernel more collapsed than NNGP, two").holds
    failing = one(judged, "(b) adapted kernel more collapsed than NNGP, four")
    assert not failing.holds and failing.measured.startswith("1 of 2 draws")
    assert one(judged, "(c) NTK: erf more collapsed than ReLU, four").holds
    assert one(judged, "(d)").holds is None


def test_equal_kernels_are_in_order_where_never_more_is_claimed_and_not_where_more_is(tmp_path):
    equal = HELD | {"relu_ntk": -0.9, "erf_nngp": -0.9}
    judged = claims([made(tmp_path, "two-dim_1", [equal], dim=2)])
    assert one(judged, "(a) ReLU").holds and not one(judged, "(c) NNGP").holds


def test_what_was_seen_before_is_compared_and_what_is_not_measured_is_not_judged(tmp_path):
    seen = made(tmp_path, "two-dim_8", [SEEN[8]])
    off = made(tmp_path, "two-dim_32", [SEEN[32] | {"erf_ntk": -0.5}], dim=32)
    judged = claims([seen, off])
    assert one(judged, "d_0 = 8:").holds and not one(judged, "d_0 = 32:").holds
    assert one(judged, "(b)").holds is None


NETS = {"relu_start": -0.9, "relu_net": -0.93, "relu_mean_field": -1.5}
NETS |= {"erf_start": -1.0, "erf_net": -1.04, "erf_mean_field": -1.2}


def test_networks_are_judged_on_the_draws_that_have_them(tmp_path):
    both = made(tmp_path, "two-dim_8", [HELD | NETS, HELD])
    judged = claims([both])
    assert one(judged, "(d)").holds and one(judged, "stay lazy").holds
    assert one(judged, "relu, mean-field").measured.startswith("1 of 1") and one(judged, "erf, mean-field").holds
    assert one(judged, "log10 DNC1 of relu_net, erf_net").holds
    table = tables([both])["kernels"].set_index("kernel")
    assert table.draws["erf_net"] == 1 and table.draws["erf_ntk"] == 2
    moved = {"erf_net": -1.12, "erf_mean_field": -1.0, "relu_net": -1.3}
    judged = claims([made(tmp_path, "two-dim_32", [HELD | NETS | moved], dim=32)])
    for part in ("(d)", "stay lazy", "erf, mean-field", "log10 DNC1 of relu_net"):
        assert not one(judged, part).holds
    (figure, _) = drawn_for("column", lambda: draw([both])).values()
    assert len(figure.axes) == 10


def test_figures_and_table_have_every_kernel(tmp_path):
    results = [made(tmp_path, "two-dim_8", [HELD, HELD]), made(tmp_path, "two-dim_32", [HELD], dim=32)]
    assert set(drawn_for("column", lambda: draw(results))) == {"kernels", "kernels_over_data"}
    assert set(tables(results)["kernels"].kernel) == set(HELD)

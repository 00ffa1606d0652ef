"""Depth: trends are judged on means over seeds, and every network has the decay that it was trained with."""

import pytest
import torch
from measured_results import point_of, result_of
from readable import drawn_for
from safetensors.torch import save_file
from study_results import one

from pipeline.studies._depth import decay_of, kind_of, table
from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.depth import STUDY, claims, draw, measurements, tables
from pipeline.studies.engine.study import CPU, FULL, QUICK
from pipeline.theory import gufm_optimum

CLASSES, WIDTH = 10, 64


def _run(folder, kind, depth, nc1, accuracy=0.9, gap=2.0, seed=0, known=True):
    point = point_of(STUDY, CPU, f"{kind}-depth_{depth}-seed_{seed}")
    weight = 0.5 * torch.eye(CLASSES, WIDTH)  # a simplex once centred
    decay = (1e-2 if kind == "two_twice" else 5e-3) / (depth if "_" in kind else 1)
    objective = (1 + gap) * gufm_optimum(CLASSES, decay, WIDTH).loss
    penalty = objective - 0.01 * objective
    whole = {"objective": [9.0, objective], "penalty": [1.0, penalty], "gradient_norm": [1.0, 0.01]}
    whole |= {"train_accuracy": [0.1, 1.0], "test_accuracy": [0.1, accuracy]}
    curves = {None: whole, CLASSIFIER: {"dnc1": [2.0, nc1], "nc3_cosine": [0.0, 1 - nc1 / 2]}}
    optimum = gufm_optimum(CLASSES, decay, WIDTH).loss
    made = result_of(folder, STUDY, point, curves, loss={"total": [objective], "optimum": optimum if known else None})
    save_file({"weights/1": weight}, made.folder / "tensors.safetensors")
    return made


def _series(folder, kind, values, **more):
    return [_run(folder, kind, depth, nc1, **more) for depth, nc1 in values.items()]


def test_means_that_fall_at_every_step_hold_and_others_do_not(tmp_path):
    falling = _series(tmp_path, "one", {2: 0.8, 5: 0.4, 13: 0.2})
    judged = claims(falling)
    assert one(judged, "NC1 falls with L, one layer").holds and one(judged, "NC3 falls").holds
    assert one(judged, "slope").holds and one(judged, "accuracy").holds
    assert not one(judged, "NC2 falls").holds  # 0 everywhere
    assert not one(judged, "gap to the GUFM falls").holds  # 2 everywhere
    # One seed turns the mean around.
    turned = [*falling, _run(tmp_path, "one", 13, 0.9, seed=1)]
    assert not one(claims(turned), "NC1 falls with L, one layer").holds


def test_a_transformer_has_the_claims_of_one_layer(tmp_path):
    falling = claims(_series(tmp_path / "a", "transformer", {2: 0.8, 5: 0.4}))
    assert one(falling, "NC1 falls with L, transformer").holds and not one(falling, "gap to the GUFM falls").holds
    assert not one(claims(_series(tmp_path / "b", "transformer", {2: 0.4, 5: 0.8})), "NC1 falls with L").holds


def test_constant_decay_keeps_more_than_half(tmp_path):
    assert one(claims(_series(tmp_path / "a", "two", {2: 0.6, 21: 0.31})), "less than half").holds
    assert not one(claims(_series(tmp_path / "b", "two", {2: 0.6, 21: 0.29})), "less than half").holds


def test_an_objective_below_the_optimum_and_a_changed_accuracy_are_told(tmp_path):
    runs = [_run(tmp_path, "one", 2, 0.5), _run(tmp_path, "one", 5, 0.4, gap=-1e-3, accuracy=0.93)]
    judged = claims(runs)
    assert not one(judged, "below the GUFM").holds and not one(judged, "accuracy").holds


@pytest.mark.parametrize(
    ("kind", "decay"),
    [("one", 5e-3), ("two", 5e-3), ("two_over_depth", 1e-3), ("two_twice", 2e-3), ("transformer", 5e-3)],
)
def test_the_gap_is_that_of_the_decay_before_every_matrix(kind, decay, tmp_path):
    made = _run(tmp_path, kind, 5, 0.5)
    assert kind_of(made) == kind and decay_of(made) == pytest.approx(decay)
    (row,) = table([made]).itertuples()
    assert row.gap == pytest.approx(2.0) and row.fit + row.blocks + row.classifier == pytest.approx(3.0)
    assert row.classifier == pytest.approx(decay / 2 * CLASSES * 0.25 / gufm_optimum(CLASSES, decay, WIDTH).loss)
    assert row.nc2 == pytest.approx(0, abs=1e-7)


def test_where_no_optimum_is_known_nothing_is_judged_by_it(tmp_path):
    judged = claims([_run(tmp_path, "one", depth, 1 / depth, known=False) for depth in (2, 5)])
    assert one(judged, "NC1 falls").holds and not any("below the GUFM" in claim.claim for claim in judged)


def test_what_was_seen_before_stands_beside_runs_of_its_length_alone(tmp_path):
    long = tables([_run(tmp_path / "a", "one", 5, 0.45)])["depth"]
    assert long.nc1_seen_before.tolist() == [0.450] and long.gap_seen_before.tolist() == [1.95]
    assert tables([_run(tmp_path / "b", "two_over_depth", 5, 0.45)])["depth"].nc1_seen_before.isna().all()
    point = point_of(STUDY, QUICK, "one-depth_5-seed_0")
    assert "backbone.epochs=200" in point.shrunk


def test_figures_show_all_kinds_and_every_part(tmp_path):
    runs = [
        run
        for kind in ("one", "two", "two_over_depth", "two_twice", "transformer")
        for run in _series(tmp_path, kind, {2: 0.8, 5: 0.5, 13: 0.3})
    ]
    drawn = drawn_for("column", lambda: draw(runs))
    assert set(drawn) == {"depth", "depth_gap", "depth_transformer"}
    assert [len(axes.lines) for axes in drawn["depth_transformer"].axes] == [2] * 4
    assert [len(axes.lines) for axes in drawn["depth"].axes] == [4] * 3
    parts = drawn["depth_gap"].axes[1]
    assert len(parts.collections) == 3
    assert len(measurements(runs)) == 5


def test_the_full_version_has_the_depths_and_sets_of_the_paper():
    names = [point.name for point in STUDY.chosen(FULL) if point.name.startswith(("mnist-", "cifar10-"))]
    assert len(names) == 2 * 5 * 7 * 5 and "cifar10-two_over_depth-depth_34-seed_4" in names

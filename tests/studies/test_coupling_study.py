"""Coupling: the matrix of a record, means of near pairs, trends that hold and that do not, correlation with bounds."""

import numpy as np
import pytest
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._coupling import matrix, near, rank_correlation
from pipeline.studies.coupling import STUDY, claims, draw, measurements, tables
from pipeline.studies.engine.study import FULL

KEYS = {"line_shape_score": (2.0, 1.5), "ra1_spacing": (0.2, 0.3), "ra3_beyond": (0.3, 0.01)}
KEYS |= {"ra2_left_right": (0.1, 0.2), "ra4_largest": (3.0, 3.0)}


def _run(folder, name, m, *, accuracy=0.9, blocks=3, before=1.0):
    """A network all pairs of whose blocks couple alike, m after training."""
    names = [f"network.blocks.{number}" for number in range(blocks)]
    curves = {None: {"test_accuracy": [0.1, accuracy], "train_accuracy": [0.1, 1.0]}}
    for own in names:
        pairs = {f"coupling/with={other}/post": [before, m] for other in names if other != own}
        curves[own, "post"] = {**pairs, **KEYS, "dnc1": [2.0, m / 2]}
    return result_of(folder, STUDY, point_of(STUDY, FULL, name), curves)


def test_a_matrix_has_the_block_itself_as_its_row_and_the_other_as_its_column(tmp_path):
    names = [f"network.blocks.{number}" for number in range(6)]
    curves = {
        (own, "post"): {
            f"coupling/with={other}/post": [9.0, 10.0 * row + column]
            for column, other in enumerate(names)
            if own != other
        }
        for row, own in enumerate(names)
    }
    result = result_of(tmp_path, STUDY, point_of(STUDY, FULL, "L5-decay_0"), curves)
    found = matrix(result)
    assert found[4, 1] == 41 and np.isnan(found.diagonal()).all() and np.nanmax(matrix(result, 0)) == 9
    pairs = [(i, j) for i in range(6) for j in range(6) if 0 < abs(i - j) <= 3]
    assert near(found) == pytest.approx(np.mean([found[pair] for pair in pairs]))


def test_networks_as_the_papers_have_them_hold_every_claim(tmp_path):
    runs = [
        _run(tmp_path, f"L{depth}-decay_{decay:g}", 1 - 0.2 * (at + 1) - 0.05 * number)
        for number, depth in enumerate((5, 13))
        for at, decay in enumerate((0.0, 5e-4, 5e-3))
    ]
    runs += [
        _run(tmp_path, f"n{size}-decay_0-noise_{noise:g}-seed_{seed}", 0.8 - 0.1 * seed - size / 100, accuracy=accuracy)
        for noise, less in ((0.0, 0.0), (0.2, 0.2))
        for size in (10, 40)
        for seed in (0, 1)
        for accuracy in [0.5 + 0.1 * seed + size / 200 - less]
    ]
    runs += [_run(tmp_path, "vit-n10", 0.9, blocks=2)]
    runs += [_run(tmp_path, f"vit-n10-decay_{decay:g}", 0.9 - 20 * decay, blocks=2) for decay in (0.0, 5e-3)]
    runs += [_run(tmp_path, "L5-decay_0.005-no_skip", 0.99)]
    judged = claims(runs)
    assert all(claim.holds for claim in judged), [claim.claim for claim in judged if not claim.holds]
    assert len(measurements(runs)) == 7 and len(tables(runs)["coupling"]) == len(runs)
    figures = drawn_for("neurips", lambda: draw(runs))
    assert set(figures) == {"coupling", "coupling_matrices"}


def test_what_is_not_so_fails(tmp_path):
    after = {
        "L5-decay_0": 0.5,
        "L5-decay_0.005": 1.1,
        "vit-n10": 1.0,
        "vit-n10-decay_0": 0.5,
        "vit-n10-decay_0.005": 0.6,
    }
    judged = claims([_run(tmp_path, name, m) for name, m in after.items()])
    for part in (
        "residual MLPs: coupling grows",
        "L = 5: m falls with decay",
        "transformers: coupling grows",
        "transformers: m falls with decay",
    ):
        assert one(judged, part).holds is False


def test_the_rank_correlation_is_spearmans_and_its_interval_holds_it():
    first = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert rank_correlation(first, [value**3 for value in first]) == pytest.approx((1, 1, 1))
    value, low, high = rank_correlation(first, [2.0, 1.0, 4.0, 3.0, 6.0, 5.0, 8.0, 7.0])
    assert value == pytest.approx(1 - 6 * 8 / (8 * 63)) and low < value < high

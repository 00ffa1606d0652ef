"""Leaky networks: spectra of a record, claims of a path as theory has it, and none about H far from stationary."""

import pytest
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies.engine.study import CPU
from pipeline.studies.leaky import (
    STUDY,
    claims,
    draw,
    large_values,
    measurements,
    middle,
    spectrum,
    stable_rank,
    tables,
)


def _run(folder, leak, rank, cost, *, residual=0.3, blocks=12):
    """A path whose cost falls from the ends to the middle, with two large singular values there."""
    curves = {None: {"test_fit": [1.0], "fit": [0.1], "objective": [0.5]}}
    for number in range(blocks):
        edge = number in (0, blocks - 1)
        curves[f"network.blocks.{number}", "post"] = {
            "estimated_rank": [rank + 0.001 * number],
            "estimated_rank_midpoint": [rank + 0.1 + 0.001 * number],
            "stable_hamiltonian": [-leak / 2 * (rank + 0.001 * number)],
            "hamiltonian": [-leak * rank / 2 + 0.01 * number],
            "kinetic_energy": [20.0 if edge else 1.0],
            "potential_energy": [30.0],
            "cost_of_identity": [cost * (1 + 5 * edge + 5 * (number == 0))],
            "identity_residual": [0.1],
            "nuclear_stable_rank": [2.0],
            "negativity": [0.01],
            **{f"{name}{part}": [v] for name in ("path_value", "weight_value") for part, v in VALUES.items()},
        }
    curves[f"network.blocks.{blocks - 1}", "post"] |= {"stationarity_residual": [residual], "balance_residual": [0.1]}
    return result_of(folder, STUDY, point_of(STUDY, CPU, f"leak_{leak}"), curves)


VALUES = {"": 5.0, "/k=2": 4.0, "/k=3": 0.1}


def test_a_path_with_a_bottleneck_holds_every_claim(tmp_path):
    runs = [_run(tmp_path, leak, rank, 4 / rank) for leak, rank in ((2, 0.5), (7, 1.8))]
    assert spectrum(runs[0], ("network.blocks.0", "post"), "path_value") == [5.0, 4.0, 0.1]
    assert large_values(runs[0]) == [2, 2, 2, 2]
    assert middle([1, 1, 1, 2, 2, 3, 1, 1, 1]) == [2, 2, 3]
    assert stable_rank(runs[1]) == pytest.approx([1.8 + 0.001 * number for number in range(12)])
    judged = claims(runs)
    assert all(claim.holds for claim in judged), [claim for claim in judged if not claim.holds]
    assert len(measurements(runs)) == 4 and len(tables(runs)["leaky"]) == 24
    assert set(drawn_for("neurips", lambda: draw(runs))) == {"leaky"}


def test_what_is_not_so_fails_and_h_is_not_judged_far_from_stationary_points(tmp_path):
    runs = [_run(tmp_path / "far", 2, 3.0, 1.0, residual=1.5), _run(tmp_path / "far", 7, 2.9, 2.0, residual=1.2)]
    judged = claims(runs)
    assert one(judged, "-2H/Lt rises").holds is None and one(judged, "-2H/Lt is at most").holds is None
    assert one(judged, "least cost of identity falls").holds is False
    near = claims([_run(tmp_path / "near", 2, 3.0, 1.0), _run(tmp_path / "near", 7, 2.9, 2.0)])
    assert one(near, "-2H/Lt rises").holds is False and one(near, "-2H/Lt is at most").holds is False

"""Deep RFM: what falls with depth, and what may not, is told layer by layer."""

import torch
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.storage.tensors import write_tensors
from pipeline.studies.deep_rfm import STUDY, claims, draw, through
from pipeline.studies.engine.study import QUICK


def _machine(folder, name, of_x, of_projected, of_phi):
    curves = {}
    for layer, values in enumerate(zip(of_x, of_projected, of_phi, strict=True), start=1):
        for rows, value in zip(("x", "projected", "phi"), values, strict=True):
            place = (f"network.layer{layer}.{rows}", "post")
            curves[place] = {"dnc1": [2.0, value], "nc2_etf_mse": [0.1, value / 10]}
    result = result_of(folder, STUDY, point_of(STUDY, QUICK, name), curves)
    tensors = {"labels": torch.arange(6) % 3, "features/1": torch.eye(6)[None]}
    write_tensors(result.folder, tensors, max_mb=1)
    return result


def test_a_machine_that_collapses_and_its_control_hold_everything(tmp_path):
    machine = _machine(tmp_path, "agop-digits-seed_0", [1.5, 0.6, 0.2], [0.4, 0.15, 0.05], [0.6, 0.2, 0.06])
    control = _machine(tmp_path, "control-digits-seed_0", [1.5, 1.7, 2.0], [1.5, 1.7, 2.0], [1.7, 2.0, 2.2])
    assert through(machine, "x", "dnc1") == [1.5, 0.6, 0.2]
    judged = claims([machine, control])
    assert len(judged) == 6 and all(claim.holds for claim in judged)
    (figure,) = drawn_for("column", lambda: draw([machine, control])).values()
    assert [len(axes.lines) for axes in figure.axes[:2]] == [6, 6]
    assert [len(axes.images) for axes in figure.axes[2:4]] == [1, 1]


def test_each_part_is_judged_by_itself(tmp_path):
    judged = claims([_machine(tmp_path, "agop-digits-seed_0", [1.5, 1.2, 0.2], [1.6, 0.15, 0.05], [0.6, 0.1, 0.06])])
    assert one(judged, "NC1 of X falls").holds and not one(judged, "leaves at most").holds
    assert not one(judged, "projection lowers").holds and not one(judged, "undo").holds
    falling = claims([_machine(tmp_path, "control-digits-seed_0", [1.5, 1.0], [1, 1], [1, 1])])
    assert not one(falling, "does not fall").holds

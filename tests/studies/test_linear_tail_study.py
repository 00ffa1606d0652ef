"""Linear tails: places of the tail, balance that is waited for, and the straight line."""

from dataclasses import replace

import pytest
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import CPU
from pipeline.studies.linear_tail import SINGLE, STUDY, claims, decay_times, draw, tail

HIDDEN = [(f"network.hidden{number}", "post") for number in (1, 2, 3)]


def _run(folder, count, dnc2, *, balance=0.01, epochs=5000, bound=2.0, point=None):
    """`dnc2` of what enters the linear layers, first to last."""
    places = [*HIDDEN, *((f"network.linear{number}", "post") for number in range(1, count))]
    values = dict(zip([*places[2 : 1 + count], CLASSIFIER], dnc2, strict=True))
    curves = {
        place: {"dnc1": [1.0, 0.1], "dnc2": [9.0, values.get(place, 7.0)], "balancedness_op": [1.0, balance]}
        for place in [*places, CLASSIFIER]
    }
    curves[CLASSIFIER]["kappa_weight"] = [9.0, dnc2[-1]]
    certificate = {"within": 1.0, "within_bound": bound, "holds": bound >= 1}
    result = result_of(folder, STUDY, point or point_of(STUDY, CPU, f"linear_{count}"), curves, certificate=certificate)
    result.record["step"] *= epochs
    return result


def test_the_tail_begins_after_the_last_nonlinear_layer(tmp_path):
    assert tail(_run(tmp_path, 1, [2.0])) == [CLASSIFIER]
    three = _run(tmp_path, 3, [8.0, 4.0, 2.0])
    assert tail(three) == [HIDDEN[2], ("network.linear1", "post"), CLASSIFIER]
    assert decay_times(three) == pytest.approx(2 * 0.2 * 3e-3 * 5000 * 0.82)


def test_a_tail_as_theory_has_it_holds_everything(tmp_path):
    runs = [_run(tmp_path, 1, [3.0]), _run(tmp_path, 2, [4.0, 2.0]), _run(tmp_path, 3, [1.8**3, 1.8**2, 1.8])]
    judged = claims(runs)
    assert len(judged) == 9 and all(claim.holds for claim in judged)
    (figure,) = drawn_for("neurips", lambda: draw(runs)).values()
    assert [len(axes.lines) for axes in figure.axes] == [1 + 2 + 1, 4, 3]


def test_what_is_not_so_fails_and_too_short_a_run_does_not_decide(tmp_path):
    judged = claims([_run(tmp_path / "long", 2, [2.2, 2.0], balance=0.2, bound=0.5)])
    for part in ("balance of each pair", "straight line", "certificate"):
        assert not one(judged, part).holds
    short = claims([_run(tmp_path / "short", 2, [2.2, 2.0], balance=0.2, epochs=500)])
    assert one(short, "balance of each pair").holds is None and one(short, "straight line").holds is None
    assert one(short, "certificate").holds


def test_a_network_of_its_own_is_not_compared_with_others(tmp_path):
    alone = replace(point_of(STUDY, CPU, "linear_4"), name=SINGLE[0].name)
    nine = _run(tmp_path, 4, [16.0, 8.0, 4.0, 2.0], point=alone, epochs=10**6)
    judged = claims([_run(tmp_path, 1, [1.0]), nine])
    assert len(judged) == 3 and all("mnist-nine_layers" in claim.claim and claim.holds for claim in judged)
    assert list(draw([nine])) == ["linear_tail_mnist-nine_layers"]

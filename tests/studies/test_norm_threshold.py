"""Feature norms and the onset: when either is crossed, what the others' norm predicts, and what claims say of it."""

import math
from dataclasses import replace

import pytest
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import CPU
from pipeline.studies.norm_threshold import STUDY, claims, draw, fall, leads, measurements, norm_at, onset, pairs


def _run(folder, name, begins, level=2.0, epochs=200, ahead=0):
    """NC1 is .1 at an epoch, the norm rises to 4, and falls through a level so many epochs before that one."""
    norms = [1.0, 4.0] + [level * 2 ** ((begins - ahead - epoch) / 20) for epoch in range(2, epochs)]
    nc1 = [0.1 * 2 ** ((begins - epoch) / 10) for epoch in range(epochs)]
    curves = {CLASSIFIER: {"feature_norm": norms, "dnc1": nc1}}
    pair, _, rest = name.partition("-")
    point = replace(point_of(STUDY, CPU, f"digits-{rest}"), name=f"{pair}-{rest}")  # other sets need their files
    return result_of(folder, STUDY, point, curves)


def _pair(folder, pair, level=2.0, **more):
    begins = {0.02: 100, 0.05: 40, 0.1: 20}
    names = [(f"{pair}-lr_{rate:g}-seed_{seed}", epoch) for rate, epoch in begins.items() for seed in (0, 1)]
    return [_run(folder, name, epoch, level, **more) for name, epoch in names]


def test_onset_and_fall_are_where_curves_cross(tmp_path):
    result = _run(tmp_path, "digits-lr_0.05-seed_0", 40)
    assert onset(result) == pytest.approx(40) and norm_at(result, onset(result)) == pytest.approx(2)
    assert fall(result, 2.0) == pytest.approx(40) and fall(result, 4.0) == pytest.approx(20)
    assert math.isnan(fall(result, 50.0))  # it was never above that
    never = _run(tmp_path, "digits-lr_0.05-seed_1", 1000)
    assert math.isnan(onset(never)) and math.isnan(norm_at(never, onset(never)))


def test_a_lead_is_by_the_norm_of_the_other_runs(tmp_path):
    first, second = (
        _run(tmp_path, f"digits-lr_0.05-seed_{seed}", 60, level) for seed, level in ((0, 2.0), (1, 2.0 * 2**0.5))
    )
    # the norm halves in 20 epochs: half of a factor of two is ten of them
    assert leads([first, second]) == pytest.approx([10, -10], abs=1e-6)


def test_claims_hold_for_one_norm_and_times_of_the_rate(tmp_path):
    results = [*_pair(tmp_path, "digits"), *_pair(tmp_path, "mnist", level=3.0)]
    judged = claims(results)
    assert list(pairs(results)) == ["digits", "mnist"] and len(judged) == 9 and len(measurements(results)) == 6
    held = ("digits: mean feature norm", "mnist: mean feature norm", "digits: the onset", "depends on network and data")
    assert all(one(judged, part).holds for part in held)
    # a norm that crosses its own value at the onset has no lead
    assert not one(judged, "mnist: it does so 62 epochs before").holds
    (figure,) = drawn_for("column", lambda: draw(results)).values()
    assert len(figure.axes) == 6
    (figure,) = drawn_for("column", lambda: draw([r for r in results if "lr_0.02" not in r.point.name])).values()
    entries = [entry.get_text() for legend in figure.legends for entry in legend.get_texts()]
    assert [entry for entry in entries if "rate" in entry] == ["rate 0.05", "rate 0.1"]  # not what was not run


def test_claims_fail_for_norms_and_times_that_differ(tmp_path):
    results = [
        _run(tmp_path, f"digits-lr_{rate}-seed_0", 60, level) for rate, level in ((0.02, 1.0), (0.05, 2.0), (0.1, 1.5))
    ]
    never = _run(tmp_path, "digits-lr_0.1-seed_1", 1000)  # collapse does not begin: it is told, and left out
    judged = claims([*results, never])
    assert len(judged) == 4 and not any(claim.holds for claim in judged)
    assert "1 of 4 runs: digits-lr_0.1-seed_1" in [said.measured for said in measurements([*results, never])]

"""The claims of E1 are judged from the records alone, and one that fails is reported as failing."""

import pytest
from readable import drawn_for
from study_results import STEPS, collapsed_layers, one, optimum, verdicts, with_optimal_tensors

from pipeline.storage.record import Row
from pipeline.studies.e1 import claims, draw, measurements


def test_a_collapsed_head_bears_out_every_claim_of_e1(made):
    results = [made([optimum(depth) * 1.0005] * 3, depth=depth) for depth in (3, 4, 6)]
    assert all(verdicts(claims(results)).values())


def test_one_seed_above_the_allowed_gap_makes_the_claim_fail_and_is_counted(made):
    found = one(claims([made([optimum() * 1.0005] * 9 + [optimum() * 1.0011])]), "gap")
    assert not found.holds and "9 of 10" in found.measured and "0.0011" in found.measured
    deep = made([optimum(6) * 1.0011] * 10, depth=6)
    assert one(claims([deep]), "gap").holds  # 0.5 % is allowed there


@pytest.mark.parametrize(
    ("metric", "layer", "tap", "value", "fails"),
    [
        ("dnc1", 1, "pre", 1e-5, True),
        ("dnc2", 3, "pre", 1.06, True),
        ("dnc2", 2, "post", 1.06, True),
        ("dnc2", 2, "pre", 9.0, False),
        ("dnc2", 1, "pre", 1.0, False),
        ("dnc3", 2, "post", 0.06, True),
        ("dnc3", 1, "pre", 1e-11, False),
        ("dnc1", 2, "post", None, True),
        ("dnc2", 3, "post", None, True),
    ],
)
def test_a_metric_counts_exactly_where_the_theorem_promises_it(made, metric, layer, tap, value, fails):
    layers = collapsed_layers(3, seeds=2)
    (place,) = [place for place in layers if (place["layer"], place["tap"]) == (layer, tap)]
    place[metric] = [place[metric][0], value]
    judged = claims([made([optimum()] * 2, layers=layers)])
    failing = [claim for claim in judged if not claim.holds]
    assert [claim.claim.split(": ")[1].split()[0] for claim in failing] == ([metric.upper()] if fails else [])


def test_of_the_first_layer_it_is_told_what_was_measured_and_no_verdict(made):
    layers = collapsed_layers(3, seeds=2)
    layers[0]["dnc3"] = [1e-11, 3e-11]
    result = made([optimum()] * 2, layers=layers)
    judged = verdicts(claims([result]))
    assert all(judged.values()) and not [text for text in judged if "H_1" in text or "W_1" in text]
    told = {each.quantity: each.measured for each in measurements([result])}
    assert told == {
        "L = 3: DNC2 of H_1": "median 3 (3 to 3)",
        "L = 3: DNC3 of W_1": "median 2e-11 (1e-11 to 3e-11)",
    }


def test_both_figures_are_readable(made):
    rows = [
        Row("head", step, seed, layer, tap, metric, (1.0 + seed) / (1 + step))
        for step in STEPS
        for seed in range(2)
        for layer, tap in (("", ""), ("1", "pre"), ("2", "pre"), ("2", "post"))
        for metric in (("loss", "relative_gap") if layer == "" else ("dnc1", "dnc2", "dnc3"))
    ]
    results = [with_optimal_tensors(made([optimum(depth)] * 2, depth=depth, rows=rows)) for depth in (3, 4)]
    figures = drawn_for("column", lambda: draw(results))
    assert list(figures) == ["e1_convergence", "e1_gram"]

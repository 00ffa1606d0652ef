"""The verdict: thresholds per layer, counted only where the theorem speaks."""

import pytest

from pipeline.dufm.objectives import load_objective
from pipeline.dufm.verdict import all_collapsed, features_collapsed, judge, notes, theorem_speaks_of

MSE, CROSS_ENTROPY = load_objective("mse"), load_objective("cross_entropy")
THRESHOLDS = {"dnc1": 1e-2, "dnc2": 1.1, "dnc3": 0.1}


def head(depth, **changes):
    """A perfectly collapsed head; ``changes`` maps e.g. ``dnc2_3_post`` to the values of its seeds."""
    layers = []
    for layer in range(1, depth + 1):
        for tap in ("pre",) if layer == 1 else ("pre", "post"):
            entry = {"layer": layer, "tap": tap, "dnc1": [0.0, 0.0], "dnc2": [1.0, 1.0], "dnc3": None}
            if layer == 1 or tap == "post":
                entry["dnc3"] = [0.0, 0.0]
            for metric in ("dnc1", "dnc2", "dnc3"):
                entry[metric] = changes.get(f"{metric}_{layer}_{tap}", entry[metric])
            layers.append(entry)
    return layers


def test_the_theorem_speaks_of_exactly_the_places_it_names():
    # Súkeník et al. 2023: DNC1 everywhere; DNC2 of sigma(H_l), l >= 2, and of H_l, l >= 3; DNC3 of W_l, l >= 2.
    places = [(1, "pre"), (2, "pre"), (2, "post"), (3, "pre"), (3, "post")]
    assert [theorem_speaks_of(*place, "dnc1") for place in places] == [True] * 5
    assert [theorem_speaks_of(*place, "dnc2") for place in places] == [False, False, True, True, True]
    assert [theorem_speaks_of(*place, "dnc3") for place in places] == [False, False, True, False, True]


def test_a_collapsed_head_is_collapsed_from_its_first_layer():
    verdict = judge(MSE, head(3), [], THRESHOLDS, None)
    assert verdict["collapsed"] and verdict["collapsed_from_layer"] == 1 and verdict["theorem_applies"]


@pytest.mark.parametrize("free", ["dnc2_1_pre", "dnc2_2_pre", "dnc3_1_pre"])
def test_what_the_theorem_does_not_promise_does_not_count(free):
    verdict = judge(MSE, head(3, **{free: [9.0, 9.0]}), [], THRESHOLDS, None)
    assert verdict["collapsed"]
    metric, layer, tap = free.split("_")
    place = next(p for p in verdict["layers"] if (p["layer"], p["tap"]) == (int(layer), tap))
    assert not place[metric]["collapsed"] and not place[metric]["theorem"] and place[metric]["value"] == 9.0


@pytest.mark.parametrize(
    ("broken", "first"), [("dnc1_1_pre", 2), ("dnc2_2_post", 3), ("dnc2_3_pre", 4), ("dnc3_3_post", 4)]
)
def test_collapse_begins_after_the_last_layer_that_breaks_a_promise(broken, first):
    verdict = judge(MSE, head(4, **{broken: [0.5, 9.0]}), [], THRESHOLDS, None)
    assert not verdict["collapsed"] and verdict["collapsed_from_layer"] == first
    assert ("last layer of the head only (4)" if first == 4 else f"layer {first} of the head on") in verdict["text"]


def test_no_collapse_in_the_last_layer_is_no_collapse_but_says_what_holds_where():
    broken = {"dnc1_3_post": [1.0, 1.0], "dnc3_2_post": [1.0, 1.0]}
    verdict = judge(MSE, head(3, **broken), [], THRESHOLDS, None)
    assert verdict["collapsed_from_layer"] is None
    assert verdict["holds_from_layer"] == {"dnc1": None, "dnc2": 2, "dnc3": 3}
    assert verdict["text"] == "no deep neural collapse: DNC1 nowhere, DNC2 in layers 2..3, DNC3 in layer 3"


def test_one_seed_out_of_two_is_not_collapse_and_the_median_is_shown():
    verdict = judge(MSE, head(2, dnc2_2_post=[1.0, 3.0]), [], THRESHOLDS, None)
    judged = verdict["layers"][-1]["dnc2"]
    assert judged == {"value": 2.0, "collapsed": False, "seeds_collapsed": 1, "counts": True, "theorem": True}


def test_an_undefined_value_is_not_collapse():
    verdict = judge(MSE, head(2, dnc1_2_post=[None, 0.0]), [], THRESHOLDS, None)
    assert not verdict["layers"][-1]["dnc1"]["collapsed"] and verdict["layers"][-1]["dnc1"]["value"] == 0.0
    verdict = judge(MSE, head(2, dnc1_2_post=[None, None]), [], THRESHOLDS, None)
    assert verdict["layers"][-1]["dnc1"]["value"] is None


def test_backbone_blocks_are_judged_but_promised_nothing():
    blocks = [{"layer": "network.hidden1", "tap": "post", "dnc1": [5.0], "dnc2": [3.0], "dnc3": None}]
    verdict = judge(MSE, head(2), blocks, THRESHOLDS, "the input features are frozen")
    assert verdict["collapsed"] and not verdict["theorem_applies"]
    assert verdict["theorem_reason"] == "the input features are frozen"
    first = verdict["layers"][0]
    assert first["stage"] == "backbone" and not first["dnc1"]["collapsed"] and first["dnc3"] is None


def test_what_collapse_is_and_how_it_is_told_depends_on_the_objective():
    layers = [entry | {"nc2_simplex": [0.0], "dnc1": [0.0], "dnc2": [9.0], "dnc3": [0.9]} for entry in head(3)]
    layers[-1]["nc3_duality"] = [0.05]
    thresholds = THRESHOLDS | {"nc2_simplex": 0.1, "nc3_duality": 0.1}
    verdict = judge(CROSS_ENTROPY, layers, [], thresholds, None)
    assert verdict["collapsed"] and all_collapsed(CROSS_ENTROPY, layers, thresholds, first_layer=1)
    assert not verdict["layers"][-1]["dnc2"]["collapsed"] and not verdict["layers"][-1]["dnc2"]["theorem"]
    assert not all_collapsed(MSE, layers, THRESHOLDS, first_layer=1)
    layers[-1]["nc3_duality"] = [0.5]
    verdict = judge(CROSS_ENTROPY, layers, [], thresholds, None)
    told = "DNC1 in layers 1..3, NC2_SIMPLEX in layers 2..3, NC3_DUALITY nowhere"
    assert verdict["text"] == f"no deep neural collapse: {told}"


def test_another_metric_with_a_threshold_is_judged_but_promised_nothing():
    layers = [entry | {"cdnv": [0.1, 0.9]} for entry in head(2)]
    verdict = judge(MSE, layers, [], THRESHOLDS | {"cdnv": 0.5}, None)
    assert verdict["collapsed"] and list(verdict["holds_from_layer"]) == ["dnc1", "dnc2", "dnc3"]
    judged = {"value": 0.5, "collapsed": False, "seeds_collapsed": 1, "counts": False, "theorem": False}
    assert verdict["layers"][0]["cdnv"] == judged


@pytest.mark.parametrize("layers", [head(3), head(3, dnc2_2_post=[9.0, 9.0])])
def test_what_no_theorem_promises_counts_all_the_same_and_has_no_star(layers):
    promised, unpromised = judge(MSE, layers, [], THRESHOLDS, None), judge(MSE, layers, [], THRESHOLDS, "why", "why")
    assert promised["collapsed_from_layer"] == unpromised["collapsed_from_layer"]
    judged = {name: [place[m] for place in found["layers"] for m in THRESHOLDS if place[m]] for name, found in
              (("promised", promised), ("unpromised", unpromised))}  # fmt: skip
    assert [it["counts"] for it in judged["promised"]] == [it["counts"] for it in judged["unpromised"]]
    assert [it["theorem"] for it in judged["promised"]] == [it["counts"] for it in judged["promised"]]
    assert not any(it["theorem"] for it in judged["unpromised"])


@pytest.mark.parametrize(("classes", "sine"), [(2, "0.707"), (10, "0.316"), (100, "0.1")])
def test_the_notes_say_which_ideal_values_are_out_of_reach(classes, sine):
    assert notes([MSE], classes, [5] * classes) == []
    (note,) = notes([CROSS_ENTROPY, MSE, CROSS_ENTROPY], classes, [5] * classes)
    assert f"DNC3 {sine} " in note and "infinite DNC2" in note and "nc2_simplex and nc3_duality" in note


@pytest.mark.parametrize(("sizes", "told"), [((10, 5), False), ((11, 5), True), ((11, 5, 0), True), ((4, 4, 0), False)])
def test_the_notes_tell_classes_that_differ_in_size_by_more_than_two(sizes, told):
    assert [("dnc1_balanced" in note) for note in notes([MSE], len(sizes), sizes)] == [True] * told


def test_features_under_a_linear_classifier_are_held_to_what_their_objective_promises():
    features = {"layer": "network.hidden1", "tap": "post", "dnc1": [1e-3], "dnc2": [9.0], "dnc3": None}
    thresholds = THRESHOLDS | {"nc2_simplex": 0.1, "nc3_duality": 0.1}
    assert features_collapsed(MSE, features, THRESHOLDS)
    assert not features_collapsed(MSE, features | {"dnc1": [1.0]}, THRESHOLDS)
    assert not features_collapsed(MSE, features | {"dnc1": [None]}, THRESHOLDS)
    assert features_collapsed(CROSS_ENTROPY, features | {"nc2_simplex": [0.01]}, thresholds)
    assert not features_collapsed(CROSS_ENTROPY, features | {"nc2_simplex": [0.5]}, thresholds)

"""Headline: time constants add up step by step, and only promised places, long trained, decide."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from study_results import networks_in, one

from pipeline.config import OptimizerConfig
from pipeline.storage.record import Row, read_summary, write_summary
from pipeline.studies._time_constants import at_the_end, time_constants, within_from
from pipeline.studies.engine.results import Point
from pipeline.studies.headline import claims, draw, layers, table

LONG, SHORT = 40_000, 10_000
"""Epochs of one batch at rate 0.1 and decay 1e-2: 40 and 10 time constants."""
HELD = {"dnc1": (5e-3, 1e-3, 1e-4), "dnc2": (1.5, 1.05, 1.02), "dnc3": (0.5, 0.05, 0.01)}
"""Layer 1 is free but for DNC1."""


@pytest.fixture
def network(tmp_path):
    make = networks_in(tmp_path)

    def named(name="resnet20_end_to_end", epochs=LONG, between=(), **more):
        result = make(epochs=epochs, **HELD | more)
        rows = [Row("head", epochs // 2, 0, *place, value) for place, value in between]
        record = pd.concat([pd.read_csv(result.folder / "record.csv"), pd.DataFrame(rows, columns=Row._fields)])
        record.to_csv(result.folder / "record.csv", index=False)
        return replace(result, point=Point(f"{name}-seed_0", ()))

    return named


def scheduled(result, schedule, momentum=0.9):
    rates = OptimizerConfig(name="sgd", lr=0.2, momentum=momentum, schedule=schedule)
    return replace(result, config=replace(result.config, optimizer=rates))


@pytest.mark.parametrize(
    "schedule,share",
    [
        ("constant", lambda epoch: 1.0),
        ("drop", lambda epoch: 1.0 if epoch < 8 else 0.1),
        ("cosine", lambda epoch: (1 + math.cos(math.pi * epoch / 10)) / 2),
    ],
)
def test_time_constants_are_the_sum_of_rate_times_decay_over_all_steps(network, schedule, share):
    result = scheduled(network(epochs=10), schedule)
    for epochs in (0, 1, 8, 9, 10):
        # one batch an epoch, rate 0.2 / (1 - 0.9), decay 1e-2
        expected = sum(2.0 * share(epoch) * 1e-2 for epoch in range(epochs))
        assert time_constants(result, [epochs])[0] == pytest.approx(expected, abs=1e-12)


def test_under_a_fixed_head_the_decay_is_that_of_the_features_of_a_class(network):
    result = scheduled(network("resnet20_fixed_head", epochs=10), "constant", momentum=0.0)
    summary = read_summary(result.folder)
    summary["problem"]["feature_decay"] = 3e-3
    write_summary(result.folder, summary | {"fixed_head": {}})
    again = replace(result)
    assert time_constants(again, [10])[0] == pytest.approx(10 * 0.2 * 5 * 3e-3)


def test_places_of_which_the_theorem_says_nothing_do_not_count(network):
    result = network()
    assert at_the_end(result, "dnc2") == (1.05, "layer 2 post") and at_the_end(result, "dnc3") == (0.05, "layer 2 post")
    assert at_the_end(result, "dnc1") == (5e-3, "layer 1 pre")
    assert set(layers([result]).layer.astype(int)) == {1, 2, 3} and len(layers([result])) == 3 + 2 + 2


def test_a_threshold_that_is_missed_is_decided_only_after_a_long_training(network):
    assert all(claim.holds for claim in claims([network()]))
    missing = {"dnc3": (0.5, 0.2, 0.01)}
    assert one(claims([network(**missing)]), "DNC3").holds is False
    assert one(claims([network(epochs=SHORT, **missing)]), "DNC3").holds is None
    assert one(claims([network(epochs=SHORT)]), "DNC3").holds
    assert one(claims([network(accuracy=0.9)]), "DNC3").holds is None
    assert one(claims([network(gap=0.2)]), "loss").holds is False


def test_within_the_thresholds_means_from_then_on(network):
    assert within_from(network()) == pytest.approx(40.0)
    whole = [
        ((str(layer), "pre" if layer == 1 else "post", metric), HELD[metric][layer - 1])
        for metric in HELD
        for layer in (1, 2, 3)
    ]
    assert within_from(network(between=whole)) == pytest.approx(20.0)
    assert within_from(network(between=whole, dnc2=(1.5, 1.3, 1.0))) == math.inf
    found = table([network(between=whole)]).iloc[0]
    assert found.within_thresholds_from == pytest.approx(20.0) and found.worst_dnc2 == pytest.approx(1.05)


def test_a_figure_of_places_for_the_resnet_and_one_of_all_networks(network):
    figures = draw([network(), network("resnet20_fixed_head"), network("mlp_end_to_end")])
    assert set(figures) == {"headline", "headline_time"}
    assert len(figures["headline"].axes) == 6
    for axes in figures["headline_time"].axes:
        assert len(axes.lines) == 3  # two networks and the threshold
    assert draw([network("mlp_fixed_head")]) == {}

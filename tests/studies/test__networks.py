"""Numbers and tables of networks."""

import math
from dataclasses import replace

import pytest
import torch
from study_results import held

from pipeline.storage.record import write_summary
from pipeline.storage.tensors import write_tensors
from pipeline.studies._networks import layers_table, networks_table, seen_gap, unseen
from pipeline.studies.engine.results import Result


def test_a_run_that_failed_counts_for_nothing_and_breaks_nothing(network):
    results = [network(seed=0), network(seed=1, status="failed")]
    assert set(held(results).values()) == {True}
    table = networks_table(results)
    assert math.isnan(table.train_accuracy[1]) and table.train_accuracy[0] == 1
    assert set(held([network(status="failed")]).values()) == {None}


def test_the_layers_table_holds_the_spread_over_seeds_of_both_splits(network):
    table = layers_table([network(seed=0), network(seed=1, dnc1=(1e-1, 1e-3, 3e-4))])
    row = table[(table.stage == "head") & (table.layer == "3") & (table.metric == "dnc1")].iloc[0]
    assert (row["min"], row["median"], row["max"]) == pytest.approx((1e-4, 2e-4, 3e-4))
    test = table[(table.stage == "head") & (table.layer == "3") & (table.metric == "test_dnc1")].iloc[0]
    assert test["max"] == pytest.approx(6e-4)
    assert set(table[table.stage == "backbone"].layer) == {"network.hidden1", "network.hidden2"}


def test_under_a_fixed_head_the_part_of_the_features_it_cannot_see_is_told_apart(network):
    result = network(variant="fixed_head")
    weights = torch.zeros(1, 4, 3)
    weights[0, :2, :2] = torch.eye(2)
    features = torch.tensor([[3.0, 0.0, 4.0], [0.0, 5.0, 0.0]], dtype=torch.float64)  # squared norm 50, 16 unseen
    write_tensors(
        result.folder, {"labels": torch.tensor([0, 1]), "features/1": features, "weights/1": weights}, max_mb=1
    )
    # optimum 1, loss 1.3, of which 0.2 are the penalty on all of the features
    decay = 2 * 0.2 / 50
    fixed = {"relative_gap": 0.3, "loss": 1.3, "dufm_optimum": 1.0}
    write_summary(result.folder, result.summary | {"fixed_head": fixed})
    config = replace(result.config, head=replace(result.config.head, feature_decay=decay))
    again = Result(result.point, config, result.folder)
    assert unseen(again) == pytest.approx(16 / 50) and seen_gap(again) == pytest.approx(0.3 - 0.2 * 16 / 50)
    found = held([again])
    assert found["loss within 10% of the DUFM's optimum"] is False
    assert found["the same without the penalty on what W_1 cannot see of the features"] is False
    assert math.isnan(seen_gap(network()))

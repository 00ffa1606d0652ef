"""Claims about real networks: judged per setting by medians over seeds, undecided where training cannot tell."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from pipeline.config import (
    BackboneConfig,
    Config,
    DataConfig,
    DescentConfig,
    HeadConfig,
    OptimizerConfig,
    ProtocolConfig,
)
from pipeline.storage.record import COMPLETED, Row, write_summary
from pipeline.storage.tensors import write_tensors
from pipeline.studies.engine import claims_real
from pipeline.studies.engine.drawing_real import draw_e3
from pipeline.studies.engine.runs import Point, Result
from pipeline.studies.engine.tables_real import layers_table, networks_table, seen_gap, unseen

DEPTH = 3


@pytest.fixture
def made(tmp_path):
    """Hand-made results of end_to_end: DNC metrics of what enters W_1, W_2, W_3 as given."""
    count = iter(range(1000))

    def make(
        *,
        seed: int = 0,
        classes: tuple[int, int] = (0, 1),
        dnc1: tuple[float, ...] = (1e-1, 1e-3, 1e-4),
        dnc2: tuple[float, ...] = (1.5, 1.05, 1.02),
        dnc3: tuple[float, ...] = (0.5, 0.05, 0.01),
        start: float = 0.9,
        accuracy: float = 1.0,
        gap: float | None = 0.01,
        epochs: int = 5000,
        protocol: str = "end_to_end",
        status: str = COMPLETED,
    ) -> Result:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        config = Config(
            seed=seed,
            data=DataConfig(name="mnist", classes=list(classes)),
            backbone=BackboneConfig(name="mlp", epochs=epochs, batch_size=10),
            optimizer=OptimizerConfig(name="sgd", lr=0.1, momentum=0.0, schedule="constant"),
            head=HeadConfig(depth=DEPTH, weight_decay=1e-2),
            descent=DescentConfig(seeds=1),
            protocol=ProtocolConfig(name=protocol, regularization="dufm"),
        )
        layers, rows = [], []
        for layer in range(1, DEPTH + 1):
            tap = "pre" if layer == 1 else "post"
            values = {"dnc1": dnc1[layer - 1], "dnc2": dnc2[layer - 1], "dnc3": dnc3[layer - 1]}
            values |= {f"test_{name}": 2 * value for name, value in values.items()}
            layers.append({"layer": layer, "tap": tap, **{name: [value] for name, value in values.items()}})
            for name, value in values.items():
                rows += [
                    Row("head", 0, seed, str(layer), tap, name, start),
                    Row("head", epochs, seed, str(layer), tap, name, value),
                ]
        blocks = [
            {"layer": f"network.hidden{n}", "tap": "post", "dnc1": [1 / n], "dnc2": [2.0], "dnc3": None} for n in (1, 2)
        ]
        rows += [Row("backbone", 5, seed, block["layer"], "post", "dnc1", block["dnc1"][0]) for block in blocks]
        summary = {
            "status": status,
            "error": "RunError: diverged" if status != COMPLETED else None,
            "layers": layers,
            "backbone_layers": blocks,
            "accuracy": {"train": [accuracy], "test": [accuracy]},
            "loss": {"relative_gap": None if gap is None else [gap]},
            "problem": {"samples_per_class": 5, "num_classes": 2, "weight_decay": [1e-2] * DEPTH},
            "step_units": {"head": "epoch", "backbone": "epoch"},
        }
        write_summary(folder, summary)
        pd.DataFrame(rows, columns=Row._fields).to_csv(folder / "record.csv", index=False)
        return Result(Point(f"made-seed_{seed}", ()), config, folder)

    return make


def held(results) -> dict[str, bool | None]:
    return {claim.claim.partition(": ")[2]: claim.holds for claim in claims_real.e3_claims(results)}


def test_a_collapsed_network_bears_out_every_claim(made):
    assert set(held([made()]).values()) == {True}


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"dnc1": (1e-1, 1e-4, 1e-3)}, "DNC1 falls from layer to layer of the head"),
        ({"dnc3": (0.01, 0.05, 0.09)}, "DNC3 falls from layer to layer of the head"),
        ({"dnc1": (1e-1, 5e-2, 2e-2)}, "DNC1 of the last layer <= 0.01"),
        ({"dnc2": (1.5, 1.3, 1.2)}, "DNC2 of the last layer <= 1.1"),
        ({"dnc3": (0.5, 0.3, 0.2)}, "DNC3 of the last layer <= 0.1"),
        ({"start": 2e-4}, "DNC1 of the last layer falls to 0.1 of its start"),
        ({"gap": 0.2}, "loss within 10% of the DUFM's optimum"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_claim_that_is_wrong_is_said_to_be_wrong(made, change, claim):
    assert held([made(**change)])[claim] is False


def test_networks_that_do_not_fit_their_images_decide_nothing(made):
    claims = claims_real.e3_claims([made(accuracy=0.9)])
    assert {claim.holds for claim in claims} == {None} and all("1 not fitted" in claim.measured for claim in claims)


def test_a_limit_missed_after_a_short_training_is_not_decided_and_one_reached_is(made):
    # 5 epochs of one step each at rate 0.1 are 5e-3 time constants of the decay 1e-2.
    short = made(epochs=5, dnc2=(1.5, 1.3, 1.2))
    assert claims_real.decay_times(short) == pytest.approx(5e-3)
    found = held([short])
    assert found["DNC2 of the last layer <= 1.1"] is None and found["DNC1 of the last layer <= 0.01"] is True
    assert held([made(epochs=5)])["DNC2 of the last layer <= 1.1"] is True


def test_one_failing_setting_is_named_among_those_that_hold(made):
    results = [made(), made(classes=(4, 9), dnc2=(1.5, 1.3, 1.2))]
    (claim,) = [claim for claim in claims_real.e3_claims(results) if "DNC2 of the last" in claim.claim]
    assert claim.holds is False and claim.measured.startswith(
        "1 of 2 settings, 1.02 to 1.2; not: mnist 4/9 mlp L=3 (1.2)"
    )


def test_a_setting_is_judged_by_the_median_of_its_seeds(made):
    results = [made(seed=0), made(seed=1), made(seed=2, dnc1=(1e-1, 5e-2, 2e-2))]
    assert held(results)["DNC1 of the last layer <= 0.01"] is True


def test_a_run_that_failed_counts_for_nothing_and_breaks_nothing(made):
    results = [made(seed=0), made(seed=1, status="failed")]
    assert set(held(results).values()) == {True}
    table = networks_table(results)
    assert math.isnan(table.train_accuracy[1]) and table.train_accuracy[0] == 1
    assert set(held([made(status="failed")]).values()) == {None}


def test_the_layers_table_holds_the_spread_over_seeds_of_both_splits(made):
    table = layers_table([made(seed=0), made(seed=1, dnc1=(1e-1, 1e-3, 3e-4))])
    row = table[(table.stage == "head") & (table.layer == "3") & (table.metric == "dnc1")].iloc[0]
    assert (row["min"], row["median"], row["max"]) == pytest.approx((1e-4, 2e-4, 3e-4))
    test = table[(table.stage == "head") & (table.layer == "3") & (table.metric == "test_dnc1")].iloc[0]
    assert test["max"] == pytest.approx(6e-4)
    assert set(table[table.stage == "backbone"].layer) == {"network.hidden1", "network.hidden2"}


def test_the_figures_are_named_after_images_and_backbone(made):
    figures = draw_e3([made(), made(classes=(4, 9)), made(status="failed", classes=(7, 8))])
    assert list(figures) == [
        f"e3_mnist_{pair}_mlp_{kind}" for pair in ("0_1", "4_9") for kind in ("training", "layers")
    ]


def test_under_a_fixed_head_the_part_of_the_features_it_cannot_see_is_told_apart(made):
    result = made(protocol="fixed_head")
    weights = torch.zeros(1, 4, 3)
    weights[0, :2, :2] = torch.eye(2)
    features = torch.tensor([[3.0, 0.0, 4.0], [0.0, 5.0, 0.0]], dtype=torch.float64)  # squared norm 50, 16 unseen
    tensors = {"labels": torch.tensor([0, 1]), "features/1": features, "weights/1": weights}
    write_tensors(result.folder, tensors, max_mb=1)
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
    assert math.isnan(seen_gap(made()))

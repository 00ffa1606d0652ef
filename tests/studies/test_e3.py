"""E3: claims about networks, and the figures by name."""

import pytest
from readable import drawn_for
from study_results import held

from pipeline.studies.e3 import claims, draw
from pipeline.studies.engine.claims import CONTROL, RECALLED


def test_a_collapsed_network_bears_out_every_claim(network):
    assert set(held([network()]).values()) == {True}


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
def test_a_claim_that_is_wrong_is_said_to_be_wrong(network, change, claim):
    assert held([network(**change)])[claim] is False


def test_one_failing_setting_is_named_among_those_that_hold(network):
    results = [network(), network(classes=(4, 9), dnc2=(1.5, 1.3, 1.2))]
    (claim,) = [claim for claim in claims(results) if "DNC2 of the last" in claim.claim]
    assert claim.holds is False and claim.measured.startswith(
        "1 of 2 settings, 1.02 to 1.2; not: mnist 4/9 mlp L=3 (1.2)"
    )


def test_a_setting_is_judged_by_the_median_of_its_seeds(network):
    results = [network(seed=0), network(seed=1), network(seed=2, dnc1=(1e-1, 5e-2, 2e-2))]
    assert held(results)["DNC1 of the last layer <= 0.01"] is True


@pytest.mark.parametrize("dnc1", [(1e-1, 1e-3, 1e-4), (1e-1, 5e-2, 2e-2)])
def test_of_the_untrained_control_the_opposite_is_expected(network, dnc1):
    judged = {
        claim.claim: claim for claim in claims([network(dnc1=dnc1), network(variant="untrained_backbone", dnc1=dnc1)])
    }
    text = "DNC1 of the last layer <= 0.01"
    trained, control = judged[f"end_to_end_dufm: {text}"], judged[f"untrained_backbone: {text}"]
    assert trained.holds is (dnc1[-1] < 0.01) and control.holds is not trained.holds
    assert trained.owner == RECALLED and control.owner == CONTROL and control.expected == "in no setting"
    assert control.measured.partition(";")[0] == trained.measured.partition(";")[0]
    undecided = claims([network(variant="untrained_backbone", accuracy=0.9)])
    assert {claim.holds for claim in undecided} == {None} and {claim.owner for claim in undecided} == {CONTROL}


def test_the_figures_are_named_after_images_and_backbone(network):
    results = [network(), network(classes=(4, 9)), network(status="failed", classes=(7, 8))]
    figures = drawn_for("column", lambda: draw(results))
    assert list(figures) == [
        f"e3_mnist_{pair}_mlp_{kind}" for pair in ("0_1", "4_9") for kind in ("training", "layers")
    ]


def test_a_variant_that_diverged_says_so_in_its_column_and_shares_the_ranges_of_its_rows(network):
    lost = network(variant="end_to_end_standard", status="failed")
    half = [network(variant="fixed_head"), network(variant="fixed_head", seed=1, status="failed")]
    for figure in drawn_for("neurips", lambda: draw([network(), lost, *half])).values():
        notes = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == "note"]
        assert notes == ["1 of 1 diverged"] * 3
        tags = [text.get_text().replace("\n", " ") for axes in figure.axes for text in axes.texts]
        assert "backbone under a fixed head (1 of 2 diverged)" in tags


@pytest.mark.parametrize(("seeds", "drawn"), [((3,), "one network"), ((0, 1), "mean over 2 networks")])
def test_the_title_says_over_how_many_networks_was_averaged(network, seeds, drawn):
    for figure in draw([network(seed=seed) for seed in seeds]).values():
        assert drawn in figure.get_suptitle().replace("\n", " ")

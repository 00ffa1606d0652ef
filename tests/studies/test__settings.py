"""Settings are judged by medians over seeds, and not where training cannot tell."""

import pytest
from study_results import held

from pipeline.studies._settings import decay_times
from pipeline.studies.e3 import claims


def test_networks_that_do_not_fit_their_images_decide_nothing(network):
    judged = claims([network(accuracy=0.9)])
    assert {claim.holds for claim in judged} == {None} and all("1 not fitted" in claim.measured for claim in judged)


def test_a_limit_missed_after_a_short_training_is_not_decided_and_one_reached_is(network):
    # 5 epochs of one step each at rate 0.1 are 5e-3 time constants of the decay 1e-2.
    short = network(epochs=5, dnc2=(1.5, 1.3, 1.2))
    assert decay_times(short) == pytest.approx(5e-3)
    found = held([short])
    assert found["DNC2 of the last layer <= 1.1"] is None and found["DNC1 of the last layer <= 0.01"] is True
    assert held([network(epochs=5)])["DNC2 of the last layer <= 1.1"] is True

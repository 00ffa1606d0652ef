"""What is read off the final state of a DUFM."""

import pytest
from study_results import optimum, with_optimal_tensors

from pipeline.studies._dufm import dead_samples, outputs
from pipeline.theory import collapsed_optimum


def test_the_output_read_from_the_tensors_is_q_at_the_optimum(made):
    result = with_optimal_tensors(made([optimum()] * 2))
    assert outputs(result) == pytest.approx([collapsed_optimum(result.problem).output] * 2, rel=1e-12)


def test_a_sample_whose_units_are_all_inactive_is_counted_as_dead(made):
    result = with_optimal_tensors(made([optimum()] * 2))
    assert dead_samples(result) == [0, 0]
    features = result.tensors["features/1"]
    features[1, [3, 70]] = 0.0
    assert dead_samples(result) == [0, 2]

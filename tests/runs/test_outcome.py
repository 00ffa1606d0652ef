"""Sections of an outcome: names are unique, later ones take precedence, and nothing is lost silently."""

import pytest
import torch

from pipeline.runs.outcome import Outcome
from pipeline.runs.sections import FactsSection


def facts(name: str, **more) -> FactsSection:
    return FactsSection(name, {"value": 1.0}, **more)


def test_a_section_is_found_by_its_name():
    first, second = facts("a"), facts("b")
    outcome = Outcome((first, second))
    assert outcome.names == ["a", "b"] and outcome.section("b") is second
    with pytest.raises(KeyError):
        outcome.section("c")


def test_two_sections_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two have one name"):
        Outcome((facts("a"), facts("a")))


def test_tensors_of_facts_stand_under_the_name_of_their_section():
    outcome = Outcome((facts("a", arrays={"x": torch.zeros(1)}), facts("b", arrays={"x": torch.ones(1)})))
    assert {name: tensor.item() for name, tensor in outcome.tensors().items()} == {"a/x": 0, "b/x": 1}


def test_a_tensor_that_two_sections_claim_is_an_error():
    outcome = Outcome((facts("a", arrays={"b/x": torch.zeros(1)}), facts("a/b", arrays={"x": torch.ones(1)})))
    with pytest.raises(ValueError, match="a/b/x is another section's, too"):
        outcome.tensors()

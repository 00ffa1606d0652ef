"""What is wrong with a value is said once, with its place and what belongs there."""

import pytest

from pipeline.storage.shapes import ANY, NULL, NUMBER, fault

SHAPE = {"name": str, "size?": (NUMBER, NULL), "parts?": [{"at": int}], "more?": {ANY: [NUMBER]}}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "a"},
        {"name": "a", "size": None, "unheard of": object()},
        {"name": "a", "size": 3, "parts": [], "more": {"x": [1, 2.5], "y": []}},
        {"name": "a", "parts": [{"at": 1, "else": "x"}]},
    ],
)
def test_what_has_its_shape_has_no_fault(value):
    assert fault(value, SHAPE) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "it is a list, not a mapping"),
        ({}, "it lacks name"),
        ({"name": 3}, "name is 3, not a text"),
        ({"name": "a", "size": "x" * 99}, f"size is '{'x' * 38}…, not a number or null"),
        ({"name": "a", "size": True}, "size is True, not a number or null"),
        ({"name": "a", "size": float("nan")}, "size is nan, not a number or null"),
        ({"name": "a", "size": 10**400}, "size is an integer of more than 300 digits, not a number or null"),
        ({"name": "a", "parts": {}}, "parts is a mapping, not a list"),
        ({"name": "a", "parts": [{"at": 1}, {"at": 1.5}]}, "parts[1].at is 1.5, not an integer"),
        ({"name": "a", "more": {"x": [None]}}, "more.x[0] is null, not a number"),
    ],
)
def test_the_first_fault_is_told_with_its_place(value, said):
    assert fault(value, SHAPE) == said


def test_of_several_shapes_the_one_of_the_right_kind_is_judged():
    assert fault({"at": "x"}, ({"at": int}, NULL), "part") == "part.at is 'x', not an integer"
    assert fault([None, "x"], ([(NUMBER, NULL)], NULL), "values") == "values[1] is 'x', not a number or null"

"""A setting says what it means and what it may be."""

from dataclasses import dataclass, fields

import pytest

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import allowed, check_value, choices_of, knob, shown, typed


@dataclass
class Oven:
    degrees: int = knob(180, "how hot", ge=50, le=300)
    share: float = knob(0.5, "how full", gt=0, lt=1)
    trays: list[int] = knob([1, 2], "which", ge=1)
    mode: str = knob("fan", "how", choices=("fan", "grill"))
    tool: str | None = knob(None, "with what", choices=lambda: ("peel", "none"))
    name: str | None = knob(None, "called")


KNOBS = {entry.name: entry for entry in fields(Oven)}


def test_each_instance_has_a_list_of_its_own():
    assert Oven().trays == [1, 2] and Oven().trays is not Oven().trays


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("degrees", "an integer >= 50 and <= 300"),
        ("share", "a finite number > 0 and < 1"),
        ("trays", "a list >= 1"),
        ("mode", "fan, grill"),
        ("tool", "peel, none"),
        ("name", "text, or null"),
    ],
)
def test_what_a_setting_may_be_is_said_in_words(name, words):
    assert allowed(KNOBS[name]) == words


def test_choices_may_be_found_when_they_are_asked_for():
    assert choices_of(KNOBS["tool"]) == ("peel", "none") and choices_of(KNOBS["name"]) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("degrees", 50), ("share", 1e-30), ("trays", [3]), ("trays", (3,)), ("tool", None), ("name", "x")],
)
def test_values_within_the_limits_pass(name, value):
    check_value(f"oven.{name}", value, KNOBS[name])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("degrees", 301, r"oven\.degrees=301 is out of range; allowed: an integer >= 50 and <= 300\.$"),
        ("degrees", 2**60, r"at most 2\^53"),
        ("degrees", True, r"oven\.degrees=True is not a number"),
        ("degrees", "hot", r"oven\.degrees=hot is not a number"),
        ("share", 1e-31, r"0 or from 1e-30"),
        ("share", 1e31, r"at most 1e\+30"),
        ("share", float("nan"), r"oven\.share=nan is out of range"),
        ("trays", [1, 0], r"oven\.trays=\[1,0\] is out of range"),
        ("mode", "gril", r"oven\.mode=gril is not known; allowed: fan, grill \(did you mean grill\?\)\.$"),
    ],
)
def test_values_beyond_them_are_refused_in_one_sentence(name, value, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_value(f"oven.{name}", value, KNOBS[name])
    assert "\n" not in str(error.value)


def test_values_are_shown_as_in_python_or_as_typed():
    assert shown([1, [None, True]]) == "[1,[None,True]]"
    assert (typed(None), typed(True), typed([1, 2]), typed("x")) == ("null", "true", "[1,2]", "x")

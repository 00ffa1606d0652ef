"""Patterns mean modules by name, at any depth, by class, and by the module itself."""

import pytest
from torch import nn

from pipeline.networks.patterns import listed, matching

MODEL = nn.Sequential()
MODEL.add_module("a", nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
MODEL.add_module("b", nn.ModuleList([nn.Sequential(nn.Linear(2, 2))]))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a", [("a", None)]),
        ("a.?:pre", [("a.0", "pre"), ("a.1", "pre")]),
        ("**", [(name, None) for name in ("a", "a.0", "a.1", "b.0", "b.0.0")]),  # a ModuleList never runs
        ("**.0", [("a.0", None), ("b.0", None), ("b.0.0", None)]),
        ("b.**", [("b.0", None), ("b.0.0", None)]),
        ("b.**.0", [("b.0", None), ("b.0.0", None)]),
        ("Linear", [("a.0", None), ("b.0.0", None)]),
        (nn.ReLU, [("a.1", None)]),
        ((nn.Linear, "pre"), [("a.0", "pre"), ("b.0.0", "pre")]),
        (MODEL.b[0], [("b.0", None)]),
        ((MODEL.a, "post"), [("a", "post")]),
    ],
)
def test_a_pattern_means(pattern, expected):
    assert matching(MODEL, pattern) == expected


def test_one_pattern_is_a_list_of_one():
    for pattern in ("a", nn.Linear, MODEL.a, (nn.Linear, "pre")):
        assert listed(pattern) == [pattern]
    assert listed(("a", "b")) == ["a", "b"]


@pytest.mark.parametrize("pattern", ["c", nn.Conv2d, nn.Linear(1, 1), "a.*.b"])
def test_what_means_nothing_is_refused(pattern):
    with pytest.raises(ValueError, match="matches no module of this Sequential"):
        matching(MODEL, pattern)

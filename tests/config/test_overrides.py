"""Arguments as Hydra's grammar wants them."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.config.overrides import readable_override


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ('a={"blocks.*": cls}', {"blocks.*": "cls"}),
        (
            "a={'fc:pre': flatten, \"layer[0-9]\": nhwc+positions}",
            {"fc:pre": "flatten", "layer[0-9]": "nhwc+positions"},
        ),
        ("a={**.attn: last}", {"**.attn": "last"}),
        ('a={text: "x: y"}', {"text": "x: y"}),
        ("a={width: 8}", {"width": 8}),
        ("a=[b,c]", ["b", "c"]),
    ],
)
def test_keys_of_mappings_may_be_quoted(argument, value):
    assert OverridesParser.create().parse_override(readable_override(argument)).value() == value

"""Arguments and values as Hydra's grammar wants them."""

import pytest

from pipeline.config.overrides import quoted, readable_override


@pytest.mark.parametrize("value", ["plain", "with space", "it's", "back\\slash", "a,b=c", "end\\", "a\\'b"])
def test_quoted_values_come_back_from_hydras_grammar(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={quoted(value)}")
    assert parsed.value() == value


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("data.root=~/x", "data.root=/home/of/nobody/x"),
        ("~head.width", "~head.width"),
        ("logger.project=a~b", "logger.project=a~b"),
        ("data.root=Größe", "data.root='Größe'"),
        ("data.classes=[ä,b]", "data.classes=[ä,b]"),
    ],
)
def test_home_folders_and_text_beyond_ascii_are_made_readable(given, read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/nobody")
    assert readable_override(given) == read

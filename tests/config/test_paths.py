"""Relative paths mean the folder in which the command was given."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pipeline.config.overrides import readable_override
from pipeline.config.paths import PATHS, absolute_override, elsewhere, settled_paths

PLACE = Path("/a project")


def values_of(override: str) -> list:
    parsed = OverridesParser.create().parse_override(readable_override(override))
    return [value.text for value in parsed.value().list] if parsed.is_sweep_override() else [parsed.value()]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("d", ["/a project/d"]),
        ("../d", ["/d"]),
        ("/d", ["/d"]),
        ("'it\\'s, d'", ["/a project/it's, d"]),
        ("Größe", ["/a project/Größe"]),
        ("null", [None]),
        ("d,/e", ["/a project/d", "/e"]),
        ("'a b',c", ["/a project/a b", "/a project/c"]),
        ("choice(d,e)", ["/a project/d", "/a project/e"]),
    ],
)
@pytest.mark.parametrize("key", PATHS)
def test_a_path_is_seen_from_where_it_was_given(key, given, meant):
    assert values_of(absolute_override(f"{key}={given}", PLACE)) == meant


@pytest.mark.parametrize("override", ["seed=d", "data=d", "~data.root", "data.root=${oc.env:D}/x"])
def test_what_is_no_path_stays_as_it_is(override):
    assert absolute_override(override, PLACE) == override


def test_paths_of_a_configuration_are_settled():
    config = {"data": {"root": "d"}, "backbone": {"from_run": None, "checkpoint": "/w.pt"}, "features": 3}
    assert list(settled_paths(config, PLACE)) == ["data.root='/a project/d'"]


def test_only_another_folder_that_is_there_is_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [elsewhere(Path(place)) for place in (tmp_path, "/nowhere/at/all", "relative", "/")] == [False] * 3 + [True]

"""What modules register, read from their source, is what they register when they are imported."""

import sys
from dataclasses import fields
from typing import get_type_hints

import pytest

from pipeline.data.registry import owners as owners_of_data
from pipeline.metrics import families, metrics
from pipeline.metrics.registry.family import metric_names
from pipeline.networks.registry import owners as owners_of_networks
from pipeline.runtime.sources import decorated, own_settings_of

SHAPES = """
from __future__ import annotations

import library_that_is_not_there
from dataclasses import dataclass

from pipeline.runtime.settings import knob

MOST = LEAST = 1
SIDES = (MOST + 2, MOST + 3)

def sides() -> tuple:
    return SIDES

@dataclass(frozen=True)
class Settings:
    side: int | None = knob(None, "sides", choices=sides)
    sizes: list[float] = knob([1.0], "sizes", gt=0)

@registry.figure("shapes", settings=Settings)
def shapes(request):
    return library_that_is_not_there.draw(request.settings)

@figure(settings=None)
def more(request): ...
"""

SHARED = """
from dataclasses import dataclass

@dataclass
class Shared:
    sides: int = 3
"""
DERIVED = """
from dataclasses import dataclass

@dataclass
class Settings(Base):
    test: int = 7

def test():
    return library_that_is_not_there

@figure(settings=Settings)
def shapes(request): ...
"""


@pytest.mark.parametrize(
    ("package", "decorator", "owners"),
    [
        ("pipeline.data.sets", "data_set", owners_of_data()),
        ("pipeline.networks.architectures", "architecture", owners_of_networks()),
    ],
)
def test_the_settings_of_every_file_are_its_own_without_importing_it(package, decorator, owners):
    found = own_settings_of(package, decorator)
    assert list(found) == list(owners)
    for name, settings in owners.items():
        assert (found[name] is None) == (settings is None)
        for mine, its in zip(fields(found[name]), fields(settings), strict=True) if settings else ():
            assert (mine.name, mine.metadata, mine.default) == (its.name, its.metadata, its.default)
        assert settings is None or get_type_hints(found[name]) == get_type_hints(settings)


def test_the_names_of_all_metrics_are_in_the_source_in_the_order_of_the_record():
    assert [name for names in metric_names().values() for name in names] == list(metrics())
    assert metric_names() == {name: family.metrics for name, family in families().items()}


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    name = f"figures_of_{request.node.name}"
    folder = tmp_path / name
    folder.mkdir()
    for name, text in {"__init__": "", "shapes": SHAPES, "plain": "def plain(): ...", "_hidden": "1 +"}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    sys.modules.pop(folder.name, None)


def test_only_what_the_settings_depend_on_is_run(package):
    found = own_settings_of(package, "figure")
    assert list(found) == ["plain", "shapes"] and found["plain"] is None
    made = found["shapes"]()
    assert (made.side, made.sizes) == (None, [1.0])
    assert fields(made)[0].metadata["choices"]() == (3, 4)
    assert get_type_hints(found["shapes"]) == {"side": int | None, "sizes": list[float]}
    assert decorated(package, "figure") == {"plain": (), "shapes": ("shapes", "more")}
    assert f"{package}.shapes" not in sys.modules


def test_what_a_module_of_ours_would_import_is_taken_from_a_part_of_it(package, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.runtime.sources.OURS", package)
    (tmp_path / package / "shapes.py").write_text(f"from {package}._common import Shared as Base\n{DERIVED}")
    (tmp_path / package / "_common.py").write_text(f"import library_that_is_not_there\n{SHARED}")
    made = own_settings_of(package, "figure")["shapes"]()
    assert (made.sides, made.test) == (3, 7) and f"{package}._common" not in sys.modules

"""A module that lies in a folder is found, and nothing else is."""

import sys

import pytest

from pipeline.runtime.discovery import modules_in, names_in


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A package with two modules, a private one, and a package within it."""
    package = tmp_path / "a_registry_of_ours"
    (package / "within").mkdir(parents=True)
    for name in ("__init__", "second", "first", "_private", "within/__init__"):
        (package / f"{name}.py").write_text("VALUE = __name__\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


def test_names_are_found_without_importing_the_modules(registry):
    assert names_in(registry.name) == ("first", "second")
    assert f"{registry.name}.first" not in sys.modules


def test_the_modules_come_in_the_order_of_their_names(registry):
    assert [module.VALUE for module in modules_in(registry.name)] == [
        f"{registry.name}.{n}" for n in ("first", "second")
    ]


def test_a_new_file_is_found_by_being_there(registry):
    (registry / "another.py").touch()
    assert "another" in names_in(registry.name)

"""Packages that pass on names when somebody asks for them."""

import sys

import pytest

PACKAGE = """
from typing import TYPE_CHECKING

from pipeline.runtime.on_demand import passes_on

if TYPE_CHECKING:
    from lazy_of_a_test.heavy import VALUE, other as renamed

__getattr__ = passes_on(__name__, __file__)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "lazy_of_a_test").mkdir()
    (tmp_path / "lazy_of_a_test/__init__.py").write_text(PACKAGE)
    (tmp_path / "lazy_of_a_test/heavy.py").write_text("VALUE, other = 1, 2")
    monkeypatch.syspath_prepend(tmp_path)
    import lazy_of_a_test

    yield lazy_of_a_test
    for name in [name for name in sys.modules if name.startswith("lazy_of_a_test")]:
        del sys.modules[name]


def test_a_module_is_imported_when_a_name_of_it_is_asked_for(package):
    assert "lazy_of_a_test.heavy" not in sys.modules
    assert package.VALUE == 1 and "lazy_of_a_test.heavy" in sys.modules
    from lazy_of_a_test import renamed

    assert renamed == 2 and vars(package)["renamed"] == 2


def test_an_unknown_name_is_an_attribute_error_and_no_module_is_hidden(package):
    with pytest.raises(AttributeError, match="'lazy_of_a_test' has no attribute 'nothing'"):
        _ = package.nothing
    assert not hasattr(package, "__wrapped__")
    from lazy_of_a_test import heavy

    assert heavy.VALUE == 1


@pytest.mark.parametrize("name", ["data", "networks", "dufm", "dufm.objectives", "metrics", "metrics.registry"])
def test_every_public_name_of_our_packages_is_passed_on(name):
    package = sys.modules.get(f"pipeline.{name}") or __import__(f"pipeline.{name}", fromlist=["__all__"])
    get = package.__getattr__
    assert all(get(public) is getattr(package, public) for public in package.__all__)

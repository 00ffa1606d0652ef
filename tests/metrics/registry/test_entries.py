"""What is registered is what a file says, or it is refused in a sentence."""

import pickle
import subprocess
import sys

import pytest

from pipeline.metrics import registry
from pipeline.metrics.registry import entries, listing, metric, row_sum, statistic


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten."""
    registry.metrics()  # whatever was imported before, all families are there
    for name in ("METRICS", "STATISTICS", "ROW_SUMS", "_homes"):
        monkeypatch.setattr(entries, name, dict(getattr(entries, name)))
        if hasattr(listing, name):
            monkeypatch.setattr(listing, name, getattr(entries, name))


def formula(statistics):
    """Half of one. And no more."""
    return statistics.within_trace / 2


def renamed(name: str, takes: str = "statistics"):
    space: dict = {"__name__": "somewhere.tails"}
    exec(f"def {name}({takes}):\n    '''Nothing.'''", space)
    return space[name]


def test_a_metric_is_what_its_decorator_and_its_formula_say() -> None:
    metric(title="Half", target=0.5, scale="linear", panel=True, invariant=("rotation",), version=3)(formula)
    found = registry.metrics()["formula"]
    assert (found.title, found.target, found.scale, found.panel, found.version) == ("Half", 0.5, "linear", True, 3)
    assert (found.family, found.takes, found.summary) == ("test_entries", ("statistics",), "Half of one. And no more.")
    assert found.of_rows and found.invariant == ("rotation",)
    assert registry.entry("test_formula") == registry.entry("formula") == found and registry.entry("formulas") is None


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: metric(title="", scale="cubic"), r"scale must be of log, linear, got 'cubic'\."),
        (lambda: metric(title="", invariant=("wind",)), r"invariant must be of rotation, .*, got 'wind'\."),
        (lambda: metric(title="")(renamed("test_it")), r"must not begin with 'test_', got 'test_it'"),
        (lambda: metric(title="")(renamed("dnc1")), r"the name 'dnc1' is taken by pipeline\.metrics\.core\.dnc1; got"),
        (lambda: metric(title="")(renamed("weight")), r"the name 'weight' is taken by an input of formulas; got"),
        (lambda: statistic(shape=lambda k, d: (), merge="mean"), r"merge must be sum, max or a function, got 'mean'\."),
        (lambda: row_sum(needs=("luck",)), r"needs must be of nearest, decisions, unit, got 'luck'\."),
    ],
)
def test_what_cannot_be_registered_is_refused_in_a_sentence(register, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register()


def test_a_formula_that_takes_what_nobody_declares_is_named() -> None:
    metric(title="Wrong")(renamed("wrong", "statistics, weigth"))
    with pytest.raises(
        ValueError, match=r"what wrong takes must be among .*, got 'weigth' \(did you mean weight\?\)\."
    ):
        registry.metrics()


def test_a_cell_that_runs_again_replaces_what_it_registered() -> None:
    for title in ("First", "Second"):
        metric(title=title)(renamed("again"))
    assert registry.metrics()["again"].title == "Second"


def test_metrics_stand_family_by_family_in_the_order_of_their_files() -> None:
    known = registry.metrics()
    families = [entry.family for entry in known.values()]
    optional = {family for family in registry.families() if family != "core"}
    assert families == sorted(families, key=lambda family: (family in optional, family))
    assert [name for name, entry in known.items() if entry.family == "core"] == [
        name for name, entry in entries.METRICS.items() if entry.family == "core"
    ]


def test_the_signature_is_that_of_names_and_versions() -> None:
    plain = registry.signature()
    assert plain == registry.signature()
    metric(title="One")(renamed("one"))
    added = registry.signature()
    metric(title="Uno")(renamed("one"))
    assert registry.signature() == added != plain
    metric(title="One", version=2)(renamed("one"))
    assert registry.signature() not in (added, plain)


def test_names_are_looked_up_and_unknown_ones_refused_with_the_likest() -> None:
    names = list(registry.metrics())
    assert [entry.name for entry in registry.chosen(reversed(names))] == names
    with pytest.raises(ValueError, match=r"got 'cdmv' \(did you mean cdnv\?\)\."):
        registry.chosen(["cdmv"])
    with pytest.raises(ValueError, match=r"metrics must name at least one of .*, got none\."):
        registry.chosen([])


def test_entries_are_pickled_by_name() -> None:
    for known in (registry.metrics(), registry.statistics(), registry.row_sums()):
        for entry in known.values():
            assert pickle.loads(pickle.dumps(entry)) is entry


def test_listing_metrics_and_measuring_at_once_need_no_torchmetrics() -> None:
    code = "import sys; from pipeline import metrics; metrics.metrics(); metrics.registry.signature(); "
    code += "assert not {'torchmetrics', 'pytorch_lightning', 'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_prints_the_table() -> None:
    command = [sys.executable, "-m", "pipeline.metrics"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == registry.table()

"""A summary is read whole, whatever its age and its kind, or the reader says why it cannot be."""

import copy
import json
import subprocess
import sys
from dataclasses import asdict

import handmade
import pytest

from pipeline.metrics.registry import metrics
from pipeline.storage.summary import RunSummary, Stage, Uses, read

OLD = {
    "schema_version": 1,
    "protocol": "some_protocol",
    "status": "completed",
    "problem": {"num_classes": 2, "depth": 3, "activation": "relu", "classes": None},
    "seeds": [0, 1, 2],
    "loss": {"total": [1.0, 2.0, None], "optimum": 0.5, "relative_gap": [0.1, 0.3, None]},
    "layers": [{"layer": 3, "tap": "post", "dnc1": [0.1, 0.2, None], "dnc3": None, "undefined": {"dnc1": "why"}}],
    "backbone_layers": [{"layer": "network.a", "tap": "post", "dnc1": [1.0], "dnc3": None}],
    "accuracy": {"train": [0.5, 1.0, None], "test": None},
    "verdict": {
        "text": "collapse in the last layer",
        "thresholds": {"dnc1": 0.1, "dnc3": 0.1},
        "collapsed_from_layer": 3,
        "layers": [
            {"stage": "backbone", "layer": "network.a", "tap": "post", "dnc1": {"value": 1.0}, "dnc3": None},
            {"stage": "head", "layer": 3, "tap": "post", "dnc1": {"value": 0.15}, "dnc3": {"value": None}},
        ],
    },
    "step_units": {"head": "epoch", "backbone": "epoch"},
    "data": {"name": "digits"},
}
"""Of a run of the first house, before summaries described themselves."""


@pytest.fixture
def reading(tmp_path):
    """Read what is written into a folder, as text or as JSON."""

    def read_back(content) -> RunSummary:
        (tmp_path / "summary.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return read(tmp_path)

    return read_back


def test_a_summary_of_the_first_house_is_filled_in_from_what_it_holds(reading):
    found = reading(OLD)
    assert found.uses == Uses(images=True, network=True, head="joint") and found.sections == ("network", "head")
    assert found.title == "collapse in the last layer" and found.completed
    assert [(stage.name, stage.unit, stage.numbered) for stage in found.stages] == [
        ("backbone", "epoch", False),
        ("head", "epoch", True),
    ]
    assert [(entry.name, entry.label, entry.value) for entry in found.headline] == [
        ("gap_to_optimum", "gap", 0.2),
        ("dnc1", "DNC1", 0.15),
        ("dnc3", "DNC3", None),
        ("collapse", "collapse", "last layer"),
        ("train_accuracy", "train accuracy", 0.75),
    ]
    assert set(found.metrics) == set(metrics())


def test_a_gap_that_only_the_dufm_of_a_fixed_head_knows_is_the_headlines(reading):
    changed = OLD | {"loss": OLD["loss"] | {"relative_gap": None}, "fixed_head": {"relative_gap": 0.7}}
    assert reading(changed).headline[0].value == 0.7 and reading(changed).further == {
        "fixed_head": {"relative_gap": 0.7}
    }


def test_an_old_run_that_used_no_images_says_so(reading):
    assert reading(OLD | {"data": None, "step_units": {"head": "gradient step"}}).uses == Uses(False, False, "descent")


@pytest.mark.parametrize("kind", list(handmade.KINDS))
def test_a_summary_that_describes_itself_is_taken_at_its_word(kind, tmp_path):
    found = read(handmade.KINDS[kind](tmp_path / "run"))
    written = found.written
    assert asdict(found.uses) == written["uses"] and list(found.sections) == written["sections"]
    assert found.title == written["title"] and [asdict(entry) for entry in found.headline] == written["headline"]
    described = {
        stage.name: handmade.stage(stage.title, stage.unit, "numbered" if stage.numbered else "named")
        for stage in found.stages
    }
    assert described == written["stages"]
    shown = {name: {k: v for k, v in asdict(metric).items() if k != "name"} for name, metric in found.metrics.items()}
    assert shown == written["metrics"]


def test_a_summary_that_describes_itself_needs_no_pytorch(tmp_path):
    handmade.without_head(tmp_path / "run")
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.storage.summary import read\n"
        f"found = read(Path({str(tmp_path / 'run')!r}))\n"
        "found.metrics, found.headline, found.stages, found.title\n"
        "print(sorted({'torch', 'hydra', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_stages_that_nothing_is_known_of_come_last_under_their_own_name():
    found = RunSummary({"stages": {"b": {"title": "Second", "unit": "round", "layers": "named"}}})
    assert [stage.name for stage in found.in_order({"zzz", "b", "head"})] == ["b", "head", "zzz"]
    assert found.stage("late_stage") == Stage("late_stage", "Late stage", "step", numbered=False)
    assert found.metric("unheard_of").title == "unheard_of"


def test_no_summary_reads_as_empty(tmp_path):
    found = read(tmp_path)
    assert found.status is None and found.headline == () and found.title == "" and not found.completed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is no JSON"),
        ('{"status": "comp', "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        (f'{{"seeds": [{"9" * 5000}]}}', "it is no JSON"),
        (f'{{"seeds": [{"9" * 400}]}}', "seeds[0] is an integer of more than 300 digits, not an integer"),
        ("[1, 2]", "it is a list, not a mapping"),
        ('{"status": 7}', "status is 7, not a text"),
        (OLD | {"loss": None}, "loss is null, not a mapping"),
        (OLD | {"loss": {"total": "x"}}, "loss.total is 'x', not a list"),
        ({name: value for name, value in OLD.items() if name != "problem"}, "it has a verdict, but no problem"),
        (handmade.summary("p", headline=[{"name": "a", "label": "A"}]), "headline[0] lacks value"),
        (handmade.summary("p", stages={"a": {"title": "A", "unit": "x"}}), "stages.a lacks layers"),
        (handmade.summary("p", uses=[]), "uses is a list, not a mapping"),
        (handmade.summary("p", timings={"a": "long"}), "timings.a is 'long', not a number"),
    ],
)
def test_what_is_wrong_with_a_summary_is_its_error(content, said, reading):
    found = reading(content)
    assert found.status == "unreadable" and found.error.startswith(f"summary.json: {said}")
    assert not found.completed and found.headline == () and found.stages == () and found.title == ""


def places(value, path=()):
    """Every place within nested JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from places(item, (*path, key))


NEW = handmade.summary("p", headline=[handmade.entry("a", "A", 1.0)], stages={"s": handmade.stage("S")})


@pytest.mark.parametrize("wrong", [None, "text", -1, [[]], {"a": {}}, True])
@pytest.mark.parametrize("base", [OLD, NEW], ids=["old", "new"])
def test_no_value_at_any_place_is_an_exception(wrong, base, reading):
    for path in places(base):
        changed = copy.deepcopy({"root": base})
        node = changed
        for key in ("root", *path)[:-1]:
            node = node[key]
        node[("root", *path)[-1]] = wrong
        found = reading(changed["root"])
        assert found.status is None or isinstance(found.status, str)
        for name in ("title", "protocol", "uses", "stages", "sections", "headline", "metrics"):
            assert getattr(found, name) is not None

"""What holds of every registered protocol: it runs small, uses what it says, and its summary can be read without it."""

import json
import subprocess
import sys

import pytest
from configurations import PLAIN, configured

from pipeline.config import Config, conf_folder
from pipeline.config.folder import known_protocols
from pipeline.runs import inputs
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare
from pipeline.runs.protocols import Protocol, protocol_named, protocol_names
from pipeline.storage.record import SCHEMA_VERSION, read_record, read_summary

SMALL = PLAIN | {
    "data.classes": [0, 1],
    "data.samples_per_class": 10,
    "backbone.hidden": [8, 4],
    "backbone.epochs": 2,
    "head.depth": 2,
    "head.width": 4,
    "descent.steps": 10,
    "descent.seeds": 2,
    "protocol.samples_per_class": 4,
    "protocol.num_features": 6,
}
LEAKY = PLAIN | {
    "data.name": "teacher",
    "data.dim": 3,
    "data.samples": 8,
    "data.test": 6,
    "backbone.name": "residual_mlp",
    "backbone.depth": 3,
    "backbone.width": 4,
    "backbone.leak": 1.0,
    "backbone.epochs": 2,
    "optimizer.iterations": 2,
    "trainer.precision": "float64",
}


def small(name: str) -> Config:
    return configured((LEAKY if name == "leaky" else SMALL) | {"protocol.name": name})


@pytest.fixture(scope="module")
def performed(tmp_path_factory):
    """Performs each protocol once: its definition, its summary, its record."""
    done = {}

    def perform(name: str):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            config = small(name)
            execute(config, prepare(config), folder)
            done[name] = protocol_named(name), read_summary(folder), read_record(folder)
        return done[name]

    return perform


def test_every_protocol_has_settings_and_all_settings_a_protocol():
    assert protocol_names() == known_protocols()
    for name in protocol_names():
        text = (conf_folder() / "protocol" / f"{name}.yaml").read_text()
        assert f"name: {name}\n" in text


@pytest.mark.parametrize("name", protocol_names())
def test_the_file_is_the_registration(name):
    found = protocol_named(name)
    assert isinstance(found, Protocol) and found.name == name
    assert found.images or not found.network


def test_protocols_are_looked_up_without_waiting_for_lightning():
    code = (
        "import sys; from pipeline.runs.protocols import protocol_named, protocol_names; "
        "[protocol_named(name) for name in protocol_names()]; print('pytorch_lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("name", protocol_names())
def test_inputs_are_those_that_the_protocol_uses_and_no_others(name, monkeypatch):
    found = protocol_named(name)
    if not found.images:
        monkeypatch.setattr(inputs, "load_images", None)  # calling it would be an error
    if not found.network:
        monkeypatch.setattr(inputs, "build_backbone", None)
    made = prepare(small(name))
    assert (made.images is not None) == found.images and (made.backbone is not None) == found.network


@pytest.mark.parametrize("name", protocol_names())
def test_the_summary_says_what_the_run_used_and_what_its_steps_count(name, performed):
    found, summary, record = performed(name)
    assert summary["status"] == "completed" and summary["schema_version"] == SCHEMA_VERSION
    assert summary["uses"] == {"images": found.images, "network": found.network, "head": found.head}
    recorded = set(record.stage)
    assert recorded <= found.stages.keys()
    assert list(summary["stages"]) == [stage for stage in found.stages if stage in recorded]
    for stage, described in summary["stages"].items():
        assert described["title"] and described["unit"] == summary["step_units"][stage]
        layers = set(record[(record.stage == stage) & (record.layer != "")].layer)
        assert all(layer.isdigit() for layer in layers) == (described["layers"] == "numbered")
    assert (summary["data"] is not None) == found.images


@pytest.mark.parametrize("name", protocol_names())
def test_the_summary_has_a_title_and_numbers_to_show_first(name, performed):
    _, summary, record = performed(name)
    assert summary["title"] and not summary["title"].endswith(".")
    assert len(summary["sections"]) == len(set(summary["sections"])) > 0
    names = [entry["name"] for entry in summary["headline"]]
    assert len(names) == len(set(names)) > 0
    for entry in summary["headline"]:
        assert set(entry) == {"name", "label", "value"} and entry["label"]
        assert isinstance(entry["value"], int | float | str | None)
    assert set(summary["metrics"]) <= set(record.metric)
    assert all(set(known) == {"title", "target", "scale", "panel"} for known in summary["metrics"].values())
    assert (summary["tensors"] is None) == (summary["tensors_reason"] is not None)


@pytest.mark.parametrize("name", protocol_names())
def test_a_run_has_a_verdict_where_there_is_a_head_and_nowhere_else(name, performed):
    found, summary, _ = performed(name)
    of_heads = {"problem", "seeds", "layers", "verdict"}
    assert of_heads & summary.keys() == (of_heads if found.head else set())
    assert "loss" in summary or not found.head
    if found.head:
        assert summary["title"] == summary["verdict"]["text"]
        names = [entry["name"] for entry in summary["headline"]]
        assert names[:5] == ["gap_to_optimum", "dnc1", "dnc2", "dnc3", "collapse"]


@pytest.mark.parametrize("name", protocol_names())
def test_the_summary_is_plain_json(name, performed):
    _, summary, _ = performed(name)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary

"""A protocol is one file and its settings another: nothing else has to know of it.

Each example is written into a copy of the package, and every command is a process of its own.
"""

import subprocess
from pathlib import Path

import pytest
from added import ORTHOGONAL, PIXELS, TRAINED_ONLY, files_of
from overlay import Overlay
from safetensors.torch import load_file

from pipeline.storage.record import read_record, read_summary

SMALL = ["data.samples_per_class=20", "backbone.hidden=[16,8]", "backbone.epochs=2", "descent.steps=30"]
SMALL += ["descent.seeds=2", "head.depth=2", "head.width=8", "protocol.num_classes=3", "protocol.samples_per_class=4"]
SMALL += ["logger=none", "record.figures=false", "trainer.threads=1", "trainer.accelerator=cpu"]
SMALL += ["descent.records_per_decade=2"]


class Added:
    """The package with its new protocols, and what its command does."""

    def __init__(self, folder: Path) -> None:
        self.package = Overlay(
            folder / "package", files_of(orthogonal=ORTHOGONAL, trained_only=TRAINED_ONLY, pixels=PIXELS)
        )
        self.runs = folder / "runs"

    def dnc(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.package.dnc(*arguments, check=False)

    def run(self, protocol: str, *more: str) -> subprocess.CompletedProcess:
        return self.dnc(f"protocol={protocol}", *SMALL, f"hydra.run.dir={self.runs / protocol}", *more)


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> Added:
    return Added(tmp_path_factory.mktemp("added"))


@pytest.fixture(scope="module")
def performed(added):
    """Runs each protocol once: what it said, its summary, its record."""
    done = {}

    def perform(protocol: str):
        if protocol not in done:
            said = added.run(protocol)
            assert said.returncode == 0, said.stderr
            folder = added.runs / protocol
            done[protocol] = said.stdout, read_summary(folder), read_record(folder)
        return done[protocol]

    return perform


def test_help_and_errors_name_the_new_protocols(added):
    shown = added.dnc("--help").stdout
    choices = [line for line in shown.splitlines() if line.split()[:1] in (["protocol"], ["protocol.name"])]
    assert len(choices) == 2
    assert all(name in line for line in choices for name in ("orthogonal", "pixels", "trained_only"))
    refused = added.dnc("protocol.name=pixls")
    assert refused.returncode == 2 and "did you mean pixels?" in refused.stderr


def test_a_head_without_images_is_a_run_like_any_other(performed, added):
    said, summary, record = performed("orthogonal")
    assert summary["uses"] == {"images": False, "network": False, "head": "descent"}
    assert summary["data"] is None and summary["problem"]["num_classes"] == 3 and summary["seeds"] == [0, 1]
    assert set(record.stage) == {"head"} and record.step.max() == 30
    assert summary["title"] == summary["verdict"]["text"] and "Loss of the head" in said
    tensors = load_file(added.runs / "orthogonal" / "tensors.safetensors")
    assert tensors.keys() == {"labels", "features/1", "weights/1", "weights/2"}


def test_a_network_without_a_head_is_recorded_and_told(performed):
    said, summary, record = performed("trained_only")
    assert summary["uses"] == {"images": True, "network": True, "head": None}
    assert summary["stages"]["backbone"]["title"] == "Network" and set(record.stage) == {"backbone"}
    assert summary["sections"] == ["network"] and not {"problem", "loss", "verdict", "seeds"} & summary.keys()
    entries = {entry["name"]: entry["value"] for entry in summary["headline"]}
    last = summary["backbone_layers"][-1]
    assert entries["dnc1"] == last["dnc1"][0] and entries["train_accuracy"] == summary["accuracy"]["train"][0]
    assert summary["tensors"] is None and "no tensors" in summary["tensors_reason"]
    assert summary["title"] in said and "Accuracy (train)" in said


def test_images_without_a_network_and_facts_without_a_head(performed, added):
    said, summary, record = performed("pixels")
    assert summary["uses"] == {"images": True, "network": False, "head": None}
    assert summary["title"] == "the pixels are grey" and "the pixels are grey.\npixels: mean " in said
    assert summary["pixels"] == {"mean": record.value[0], "undefined": None, "shape": [1, 8, 8]}
    assert summary["headline"] == [{"name": "mean", "label": "mean pixel", "value": record.value[0]}]
    assert load_file(added.runs / "pixels" / "tensors.safetensors").keys() == {"pixels/mean"}


def test_a_protocol_checks_its_own_settings_before_a_folder_is_made(added):
    refused = added.dnc("protocol=pixels", "head.depth=11", f"hydra.run.dir={added.runs / 'refused'}")
    assert refused.returncode == 2 and "head.depth=11 is of no use to protocol=pixels" in refused.stderr
    assert not (added.runs / "refused").exists()


def test_runs_of_new_protocols_are_listed(performed, added):
    for protocol in ("orthogonal", "trained_only", "pixels"):
        performed(protocol)
    listed = added.dnc("list", str(added.runs))
    assert listed.returncode == 0, listed.stderr
    assert all(protocol in listed.stdout for protocol in ("orthogonal", "trained_only", "pixels"))


@pytest.mark.parametrize("protocol", ["orthogonal", "trained_only"])
def test_what_a_new_protocol_has_done_is_found_when_it_goes_on(protocol, performed, added):
    _, summary, record = performed(protocol)
    folder = added.runs / protocol
    summary_file = folder / "summary.json"
    whole = summary_file.read_text()
    summary_file.write_text(whole.replace('"completed"', '"interrupted"'))
    again = added.dnc(f"resume={folder}")
    assert again.returncode == 0, again.stderr
    assert read_record(folder).equals(record)
    assert read_summary(folder)["headline"] == summary["headline"]
    assert ("this stage is not repeated" in again.stdout) == (protocol == "trained_only")  # whose weights are kept

"""Run folders written by hand: of protocols that this repository does not have, as their summaries would describe them.

They hold what any run leaves (``record.csv``, ``summary.json``, ``.hydra``), and what no run of ours has: no head, no
images, metrics and stages of other names.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.storage.record import Row

ROWS = ("stage", "step", "seed", "layer", "tap", "metric", "value")
DNC1 = {"title": "DNC1: within / between variability", "target": 0.0, "scale": "log", "panel": True}
DNC2 = {"title": "DNC2: condition number of class means", "target": 1.0, "scale": "log", "panel": True}
SHARE = {"title": "Share of idle units", "target": 0.5, "scale": "linear", "panel": False}
BLOCKS = ("network.conv1", "network.block1", "network.block2")


def summary(protocol: str, **more: Any) -> dict[str, Any]:
    """What the summary of every completed run holds, changed by ``more``."""
    found = {
        "schema_version": 2,
        "protocol": protocol,
        "status": "completed",
        "uses": {"images": True, "network": True, "head": None},
        "environment": {"versions": {"python": "3.11"}, "device": "cpu", "git_commit": None},
        "title": "",
        "headline": [],
        "sections": [],
        "tensors": None,
        "tensors_reason": None,
        "stages": {},
        "step_units": {},
        "metrics": {},
        "stopped_early": {},
        "data": None,
        "backbone_weights": None,
        "timings": {"everything": 12.5},
    }
    return found | more


def write(folder: Path, written: Mapping[str, Any], rows: Sequence[Row] | None, config: str = "") -> Path:
    """A run folder; without rows there is no record."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(config or f"seed: 0\nprotocol:\n  name: {written['protocol']}\n")
    (folder / ".hydra" / "overrides.yaml").write_text(f"- protocol={written['protocol']}\n")
    (folder / "summary.json").write_text(json.dumps(written))
    if rows is not None:
        pd.DataFrame(rows, columns=ROWS).to_csv(folder / "record.csv", index=False, na_rep="nan")
    return folder


def network_rows(stage: str, metrics: Sequence[str], steps: Sequence[int] = (0, 1, 2, 5, 10)) -> Iterator[Row]:
    """Metrics of three blocks that fall with depth and training, on both splits; losses and accuracies."""
    for step in steps:
        for depth, block in enumerate(BLOCKS, start=1):
            for metric in metrics:
                value = 3.0 / (depth * (1 + step)) + (metric == "dnc2")
                yield Row(stage, step, 0, block, "post", metric, value)
                yield Row(stage, step, 0, block, "post", f"test_{metric}", 2 * value)
        for split, factor in (("train", 1.0), ("test", 1.5)):
            yield Row(stage, step, 0, "", "", f"{split}_loss", factor / (1 + step))
            yield Row(stage, step, 0, "", "", f"{split}_accuracy", 1 - 0.5 * factor / (1 + step))


def entry(name: str, label: str, value: float | str | None) -> dict[str, Any]:
    """An entry of a headline."""
    return {"name": name, "label": label, "value": value}


def stage(title: str, unit: str = "epoch", layers: str = "named", intermediate: bool = False) -> dict[str, Any]:
    """A stage as a summary describes it."""
    return {"title": title, "unit": unit, "layers": layers, "intermediate": intermediate}


def without_head(folder: Path) -> Path:
    """A network is trained and measured, and that is all."""
    layers = [{"layer": name, "tap": "post", "dnc3": None, "dnc1": [0.1], "dnc2": [1.1]} for name in BLOCKS]
    written = summary(
        "train_only",
        title="DNC1 0.0909, DNC2 1.09 at the last place of the network (network.block2)",
        headline=[
            entry("dnc1", "DNC1", 1 / 11),
            entry("dnc2", "DNC2", 1 + 1 / 11),
            entry("train_accuracy", "train accuracy", 0.954545),
            entry("test_accuracy", "test accuracy", 0.931818),
        ],
        sections=["network"],
        stages={"backbone": stage("Backbone")},
        step_units={"backbone": "epoch"},
        metrics={"dnc1": DNC1, "dnc2": DNC2},
        backbone_layers=layers,
        accuracy={"train": [0.954545], "test": [0.931818]},
        data={"name": "digits", "image_shape": [1, 8, 8], "train": {"0": 10}, "test": {"0": 3}, "imbalance": 1.0},
    )
    config = "seed: 0\nprotocol:\n  name: train_only\ndata:\n  name: digits\nbackbone:\n  name: mlp\n"
    return write(folder, written, list(network_rows("backbone", ("dnc1", "dnc2"))), config)


def of_two_stages(folder: Path) -> Path:
    """Two stages over the same blocks, with a metric of its own name, and a section of facts."""
    written = summary(
        "grow_and_prune",
        title="half of the units are idle after pruning",
        headline=[
            entry("idle_share", "idle units", 0.5),
            entry("fate", "fate", "pruned"),
            entry("kept", "weights kept", 123456),
        ],
        sections=["network", "pruning"],
        stages={"grow": stage("Growing"), "prune": stage("Pruning", "round")},
        step_units={"grow": "epoch", "prune": "round"},
        metrics={"idle_share": SHARE},
        pruning={"idle_share": 0.5, "rounds": [1, 2, 5], "by": {"magnitude": True}},
    )
    rows = [*network_rows("grow", ("idle_share",)), *network_rows("prune", ("idle_share",), (0, 1, 3))]
    return write(folder, written, rows)


def without_layers(folder: Path) -> Path:
    """Neither images nor a network: two numbers over the steps of one stage, nothing else."""
    written = summary(
        "toy",
        uses={"images": False, "network": False, "head": None},
        title="the walk ends at 0.01",
        headline=[entry("distance", "distance", 0.01)],
        sections=["walk"],
        stages={"walk": stage("Random walk", "step")},
        step_units={"walk": "step"},
    )
    rows = [
        Row("walk", step, seed, "", "", name, value)
        for step in (0, 1, 10, 100)
        for seed in (0, 1)
        for name, value in (("distance", (1 + seed) / (1 + step)), ("temperature", -3.0))
    ]
    return write(folder, written, rows)


def with_nothing(folder: Path) -> Path:
    """A run that completed, said nothing and recorded nothing."""
    return write(folder, summary("silent"), [])


KINDS = {"no head": without_head, "two stages": of_two_stages, "no layers": without_layers, "nothing": with_nothing}

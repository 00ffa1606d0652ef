"""Sweep files describe one grid twice, wandb's own command takes them, and its agent fills the folder of one table."""

import os
import re
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from commands import dnc
from hydra.core.override_parser.overrides_parser import OverridesParser
from tracked import DUFM, REPO, curves, expected_rows, wandb
from wandb_server import serving

from pipeline.storage.record import read_record
from pipeline.views.sweep import sweep_table

FILES = sorted((REPO / "conf" / "sweep").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def sweep(request) -> tuple[dict, list[str]]:
    """A sweep file's content, and the words of the Hydra command in its header."""
    text = request.param.read_text()
    (line,) = re.findall(r"^# Hydra: +dnc --multirun (.*)$", text, re.M)
    return yaml.safe_load(text), line.split()


def test_both_commands_describe_the_same_grid(sweep):
    content, words = sweep
    assert content["program"] == "dnc" and content["method"] == "grid"
    overrides = OverridesParser.create().parse_overrides(words)
    swept = {entry.key_or_group: entry.value().list for entry in overrides if entry.is_sweep_override()}
    ours = {tuple(zip(swept, point, strict=True)) for point in product(*swept.values())}
    wandbs = {key: entry["values"] for key, entry in content["parameters"].items()}
    assert len(ours) > 4 and ours == {tuple(zip(wandbs, point, strict=True)) for point in product(*wandbs.values())}
    fixed = {word for entry, word in zip(overrides, words, strict=True) if not entry.is_sweep_override()}
    assert {word for word in fixed if not word.startswith("hydra.")} == {
        word for word in content["command"] if "=" in word and not word.startswith(("logger", "hydra."))
    }


def test_the_agent_runs_our_command_with_hydra_overrides(sweep):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args  # seconds, which no other worker need spend

    content, _ = sweep
    point = {key: {"value": entry["values"][0]} for key, entry in content["parameters"].items()}
    words = [f"{key}={entry['value']}" for key, entry in point.items()]
    assert create_sweep_command_args({"args": point})["args_no_hyphens"] == words
    # The composed command is a valid configuration (--cfg job checks it and runs nothing).
    fixed = [word for word in content["command"] if not word.startswith("${")]
    done = dnc(*fixed, *words, "--cfg", "job", cwd=REPO, environment=os.environ | {"WANDB_RUN_ID": "first"})
    assert "mode: online" in done.stdout and "name: wandb" in done.stdout, done.stderr


def test_wandbs_own_command_takes_the_sweep(tmp_path):
    with serving() as server:
        for file in FILES:
            wandb("sweep", "--project", "p", str(file), folder=tmp_path, more=server.environment)
    assert [yaml.safe_load(entry["config"]) for entry in server.sweeps] == [
        yaml.safe_load(file.read_text()) for file in FILES
    ]


def test_an_agent_runs_a_point_of_a_sweep_into_the_folder_of_its_table(tmp_path):
    """wandb's own agent asks a server for a point of a shipped sweep (a small one) and starts our command."""
    content = yaml.safe_load((REPO / "conf" / "sweep" / "decay_width.yaml").read_text())
    content["parameters"] = {"head.weight_decay": {"values": [0.02]}, "head.width": {"values": [4]}}
    content["command"][-1:-1] = ["record.figures=false", *(word for word in DUFM if "head.width" not in word)]
    with serving() as server:
        server.sweeps.append({"config": yaml.safe_dump(content)})
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        wandb("agent", "--project", "p", "sweep1", folder=tmp_path, more=server.environment | {"PATH": path})
    run = server.runs["point0"]
    assert len(server.runs) == 1 and run.said("sweep") == "sweep1" and run.exit_codes == [0]
    (row,) = sweep_table(tmp_path / "multirun" / "decay_width")[0].itertuples()
    assert row.run == "point0" and row.status == "completed"
    assert run.config["head"]["weight_decay"] == 0.02 and run.config["head"]["width"] == 4
    assert run.summary["gap_to_optimum"] == pytest.approx(row.gap_to_optimum, rel=1e-12)
    record = read_record(tmp_path / "multirun" / "decay_width" / "point0")
    assert len(list(curves(run.history))) == len(expected_rows(record))


def test_sweeps_are_no_choice_of_a_run(tmp_path):
    shown = dnc("--help", cwd=tmp_path).stdout
    assert "  logger " in shown and "  sweep " not in shown

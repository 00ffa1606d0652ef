"""Sweep files describe one grid twice, wandb's own command takes them, and a sweep ends in one table."""

import math
import os
import re
import sys
from itertools import product
from pathlib import Path

import handmade
import pandas as pd
import pytest
import yaml
from commands import dnc
from hydra.core.override_parser.overrides_parser import OverridesParser
from matplotlib.image import imread
from tracked import DUFM, REPO, curves, expected_rows, wandb
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb_server import serving

from pipeline.storage.record import read_record, read_summary
from pipeline.views.sweep import heat_maps, main, sweep_figure, sweep_runs, sweep_table, write

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


@pytest.fixture(scope="module")
def multirun(tmp_path_factory) -> Path:
    """A real multirun over decay and width, with a job that failed."""
    folder = tmp_path_factory.mktemp("multirun")
    grid = [
        "head.weight_decay=1e-3,1e6",
        "head.width=4,8",
        "logger=none",
        "record.figures=false",
        "hydra.sweep.dir=grid",
    ]
    dnc("--multirun", *DUFM, "descent.steps=30", *grid, cwd=folder, check=False)
    return folder / "grid"


def test_the_table_has_one_row_per_run_with_what_differs(multirun):
    table, varied = sweep_table(multirun)
    assert set(varied) == {"head.weight_decay", "head.width"} and list(table.run) == [str(job) for job in range(4)]
    pairs = list(zip(table["head.weight_decay"], table["head.width"], strict=True))
    assert set(pairs) == set(product((1e-3, 1e6), (4, 8)))
    for row in table.itertuples():
        kept = read_summary(multirun / row.run)
        asked = yaml.safe_load((multirun / row.run / ".hydra" / "overrides.yaml").read_text())
        assert f"head.width={pairs[int(row.run)][1]}" in asked
        assert row.status == kept["status"]
        if kept["status"] == "completed":
            assert row.gap_to_optimum == max(kept["loss"]["relative_gap"])
            last = read_record(multirun / row.run).query("layer == '2' and tap == 'post' and metric == 'dnc1'")
            assert row.dnc1 == pytest.approx(last[last.step == last.step.max()].value.median(), rel=1e-12)
        else:
            assert math.isnan(row.gap_to_optimum) and math.isnan(row.dnc1)
    assert set(table.status) == {"completed", "failed"}


def test_the_command_writes_table_and_heat_maps(multirun, capsys):
    main([str(multirun)])
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["sweep.csv", "sweep.md", "sweep.png"]
    table, _ = sweep_table(multirun)
    pd.testing.assert_frame_equal(pd.read_csv(multirun / "sweep.csv", dtype={"run": str}), table, rtol=1e-12)
    lines = (multirun / "sweep.md").read_text().splitlines()
    assert len(lines) == 2 + 4 and lines[2].startswith("| 0 | 4 | 0.001 | completed |")
    assert imread(multirun / "sweep.png").std() > 0.05


def test_runs_that_differ_in_nothing_have_a_table_and_no_figure(multirun, tmp_path):
    table, _ = sweep_table(multirun)
    written = write(table.drop(columns=["head.width"]), [], tmp_path, heat_maps(sweep_runs(multirun)))
    assert [path.name for path in written] == ["sweep.csv", "sweep.md"]


def test_heat_maps_of_heads_are_the_gap_and_the_metrics_of_the_last_layer(multirun):
    shown = heat_maps(sweep_runs(multirun))
    assert [one.name for one in shown] == ["gap_to_optimum", "dnc1", "dnc2", "dnc3"]
    assert shown[0].title == "gap to the optimum, worst seed" and shown[1].title.startswith("DNC1: ")


def test_runs_of_other_kinds_stand_in_one_table_with_what_each_has(tmp_path):
    for kind, make in handmade.KINDS.items():
        make(tmp_path / kind)
    broken = handmade.without_head(tmp_path / "broken")
    (broken / "summary.json").write_text("{")
    main([str(tmp_path)])
    assert {"sweep.csv", "sweep.md", "sweep.png"} <= {path.name for path in tmp_path.iterdir()}
    table = sweep_table(tmp_path)[0].set_index("run")
    assert table.loc["no head", "train_accuracy"] == 0.954545 and table.loc["two stages", "idle_share"] == 0.5
    assert table.loc["no layers", "distance"] == 0.01 and table.loc["broken", "status"] == "unreadable"
    assert table.loc[["broken", "nothing"], ["dnc1", "distance", "idle_share"]].isna().all(axis=None)


def test_settings_that_are_lists_and_settings_that_are_missing_can_be_drawn(tmp_path):
    for index, value in enumerate(("[3, 8]", "null", "[1, 2]", "16")):
        folder = handmade.without_head(tmp_path / str(index))
        with open(folder / ".hydra" / "config.yaml", "a") as stream:
            stream.write(f"classes: {value}\nwidth: {10 - index}\n")
    table, varied = sweep_table(tmp_path)
    assert set(varied) == {"classes", "width"}
    figure = sweep_figure(table, ["width", "classes"], heat_maps(sweep_runs(tmp_path)))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["7", "8", "9", "10"]


def test_a_folder_without_runs_is_refused_in_a_sentence(tmp_path, capsys):
    for arguments in ([str(tmp_path)], [], ["--what"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        (line,) = capsys.readouterr().err.splitlines()
        assert exit_.value.code == 2 and line.startswith("error: ") and "allowed: " in line
    assert list(tmp_path.iterdir()) == []

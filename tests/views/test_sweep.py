"""The runs of a sweep stand in one table and in heat maps, whatever each of them is."""

import math
from itertools import product
from pathlib import Path

import handmade
import pandas as pd
import pytest
import yaml
from commands import dnc
from matplotlib.image import imread

from pipeline.storage.record import read_record, read_summary
from pipeline.storage.summary import MetricDisplay
from pipeline.views.html.command import main
from pipeline.views.sweep import heat_maps, sweep_figure, sweep_runs, sweep_table, write

SMALL = ["protocol=dufm", "protocol.samples_per_class=4", "head.depth=2", "descent.seeds=2", "descent.steps=30"]
SMALL += ["descent.records_per_decade=3", "trainer.threads=1"]


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
    dnc("--multirun", *SMALL, *grid, cwd=folder, check=False)
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
    main(["sweep", str(multirun)])
    said = capsys.readouterr().out.splitlines()
    assert "4 runs in" in said[0] and [Path(line).name for line in said[-3:]] == ["sweep.csv", "sweep.md", "sweep.png"]
    table, _ = sweep_table(multirun)
    pd.testing.assert_frame_equal(pd.read_csv(multirun / "sweep.csv", dtype={"run": str}), table, rtol=1e-12)
    lines = (multirun / "sweep.md").read_text().splitlines()
    assert len(lines) == 2 + 4 and lines[2].startswith("| 0 | 0.001 | 4 | completed |")
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
    main(["sweep", str(tmp_path)])
    assert {"sweep.csv", "sweep.md", "sweep.png"} <= {path.name for path in tmp_path.iterdir()}
    table = sweep_table(tmp_path)[0].set_index("run")
    assert table.loc["no head", "train_accuracy"] == 0.954545 and table.loc["two stages", "idle_share"] == 0.5
    assert table.loc["no layers", "distance"] == 0.01
    assert table.loc["broken", "status"].startswith("unreadable: summary.json: ")
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


def test_a_map_of_many_cells_is_no_larger_than_a_screen_and_has_a_row_for_every_value():
    grid = [(lr, decay) for lr in range(1, 51) for decay in range(1, 21)]
    table = pd.DataFrame({"lr": lr, "decay": decay, "status": "completed", "dnc1": lr / decay} for lr, decay in grid)
    maps = [MetricDisplay("dnc1", "DNC1")] * 4
    figure = sweep_figure(table, ["lr", "decay"], maps)
    assert figure.get_figwidth() < 20 and figure.get_figheight() < 8
    image = figure.axes[0].images[0].get_array()
    assert image.shape == (50, 20) and image[49, 0] == 50 and not figure.axes[0].texts


def test_a_folder_without_runs_is_refused_in_a_sentence(tmp_path, capsys):
    for arguments in (["sweep", str(tmp_path)], ["sweep"], ["sweep", str(tmp_path), "--what"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        (line,) = capsys.readouterr().err.splitlines()
        assert exit_.value.code == 2 and line.startswith("error: ")
    assert list(tmp_path.iterdir()) == []

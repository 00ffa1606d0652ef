"""Studies of the user's own: the documented example, cases, variations of a study, and no run made twice."""

import re
from pathlib import Path

import pandas as pd
import pytest

from pipeline.studies.engine.command import main
from pipeline.studies.engine.own_study import own_study
from pipeline.studies.engine.planning import by_folder, planned
from pipeline.studies.engine.study import CPU, FULL, Grid, studies

RECIPES = Path(__file__).parents[3] / "docs" / "recipes.md"
ON_DIGITS = ["data=digits", "data.samples_per_class=20", "descent.steps=4", "record.figures=false"]
DUFM = """
settings:
  protocol: dufm
  head: {depth: 2, width: 4}
  protocol.num_features: 4
  protocol.samples_per_class: 3
  descent: {steps: 12, seeds: 2, records_per_decade: 1}
  record.figures: false
"""


def study(folder: Path, text: str, name: str = "my"):
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return own_study(path)


def jobs_of(made, folder: Path, *overrides: str, version: str = FULL):
    without_files = ["data.download=true", f"data.root={folder}", *overrides]
    return planned(made, without_files, folder / "out", folder / "out", version)


def test_the_documented_example_runs_and_says_what_does_not_hold(tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level("INFO")
    (text,) = re.findall(r"\*\*`my.yaml`\*\*\n\n```yaml\n(.*?)```", RECIPES.read_text(), re.S)
    assert len(text.splitlines()) <= 12
    (tmp_path / "my.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    main(["my.yaml", "--out", "out", *ON_DIGITS])
    said = capsys.readouterr().out.splitlines()
    (out,) = (tmp_path / "out").iterdir()
    runs = pd.read_csv(out / "tables" / "my.csv")
    assert len(runs) == 4 == len(list(out.glob("runs/my/*/record.csv")))
    assert set(runs["data.classes"]) == {"[3,8]", "[1,7]"} and runs.dnc1.notna().all() and runs.failure.isna().all()
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["my_last_layer.pdf", "my_last_layer.png"]
    assert re.findall(r"\[(\d)/4, [^]]*\] my classes_", caplog.text) == ["1", "2", "3", "4"]
    assert "What does not hold" in said[0] and said[-1] == "0 of 4 claims hold: ours 0 of 4."


def test_axes_multiply_cases_go_together_and_equal_values_are_one(tmp_path):
    made = study(
        tmp_path,
        DUFM + "axes:\n  size: {small: {head.width: 4}, large: {head: {width: 6}, head.init_scale: 2}}\n"
        "  seed: [0, 1, 0x1]\n",
    )
    jobs = jobs_of(made, tmp_path)
    assert [job.point.name for job in jobs] == ["small-seed_0", "small-seed_1", "large-seed_0", "large-seed_1"]
    assert [job.config.head.width for job in jobs] == [4, 4, 6, 6] and jobs[-1].config.head.init_scale == 2
    assert [grid.multirun[0] for grid in made.grids] == ["--multirun"] * 2


def test_settings_that_a_protocol_does_not_look_at_make_no_runs(tmp_path):
    text = (
        "axes:\n  protocol: [dufm, end_to_end, frozen_features]\n  backbone.epochs: [0, 1]\n  descent.lr: [0.1, 0.2]\n"
    )
    jobs = jobs_of(study(tmp_path, text), tmp_path)
    made = by_folder(jobs)
    count = {name: sum(job.config.protocol.name == name for job in made) for name in ("dufm", "end_to_end")}
    assert len(jobs) == 12 and len(made) == 2 + 2 + 4 and count == {"dufm": 2, "end_to_end": 2}
    assert [job.folder.name == job.point.name for job in jobs].count(True) == len(made)


def test_a_variation_of_a_study_has_its_points_once(tmp_path):
    text = "study: e3\nversion: quick\nsettings: {backbone.epochs: 1, head.depth: 4, data.classes: [3, 8]}\n"
    jobs = jobs_of(study(tmp_path, text), tmp_path)
    assert {job.config.head.depth for job in jobs} == {4} and {tuple(job.config.data.classes) for job in jobs} == {
        (3, 8)
    }
    epochs = {job.point.name.partition("-")[0]: job.config.backbone.epochs for job in jobs}
    assert epochs.pop("untrained_backbone") == 0 and set(epochs.values()) == {1}
    assert len(by_folder(jobs)) == len(jobs) and not any("depth" in job.point.name for job in jobs)


@pytest.mark.slow
def test_presets_that_a_setting_makes_equal_are_planned_once(tmp_path):
    jobs = jobs_of(studies()["e3"], tmp_path, "data.classes=[3,8]", version=CPU)
    assert len(studies()["e3"].chosen(CPU)) == 114 and len(jobs) == 76


def test_an_edited_file_keeps_what_is_finished_and_makes_what_is_new(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    path, text = tmp_path / "my.yaml", DUFM + "axes: {seed: [0]}\nfigures: []\n"
    for steps, seeds in ((12, "[0]"), (13, "[0]"), (12, "[0, 1]")):
        path.write_text(text.replace("12", str(steps)).replace("[0]", seeds))
        main(["my.yaml", "--out", "out"])
    names = sorted(path.name for path in (tmp_path / "out/runs/my").iterdir())
    assert len(names) == 3 and names[0] == "seed_0" and re.fullmatch(r"seed_0-[0-9a-f]{8}", names[1])
    assert "1 of 2 runs were finished before" in caplog.text
    assert len(pd.read_csv(tmp_path / "out/tables/my.csv")) == 4


def test_a_run_that_fails_says_why_in_its_line_and_at_the_end(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    Path("my.yaml").write_text(DUFM + "axes: {descent.lr: [0.1, 1e30]}\ntables: [runs]\n")
    main(["my.yaml", "--out", "out"])
    (reason,) = re.findall(r"\[2/2, .*\] my lr_1e\+30 failed: (.*)", caplog.text)
    assert "descent.lr" in reason and "failed" not in caplog.text.partition("[2/2")[0]
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["Failed runs", f"  my lr_1e+30: {reason}"]
    runs = pd.read_csv("out/tables/my.csv")
    assert runs.failure.fillna("").tolist() == ["", "", reason, reason] and runs.loss.notna().tolist() == [1, 1, 0, 0]


def test_parts_of_a_grid_hold_what_is_wanted_and_nothing_else():
    grid = Grid("", {"a.b": (1, 2), "c": ("[0,1]", "x")})
    wanted = {"b_1-c_0_1", "b_2-c_0_1", "b_2-c_x"}
    parts = grid.parts(wanted.__contains__)
    assert sorted(point.name for part in parts for point in part.points()) == sorted(wanted)
    assert grid.parts(lambda name: True) == [grid] and grid.parts(lambda name: False) == []

"""The command runs what is missing and nothing else, draws, judges, and says what is wrong in one sentence."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from commands import commands, forked_python
from PIL import Image

from pipeline.runtime.lock import FolderLock
from pipeline.storage.record import write_summary
from pipeline.studies.engine.command import main
from pipeline.studies.engine.folders import folder_of
from pipeline.studies.engine.study import FULL, QUICK, Grid, Study, studies

TINY = [
    "descent.steps=12",
    "descent.records_per_decade=1",
    "descent.seeds=2",
    "head.width=4",
    "protocol.num_features=4",
    "protocol.samples_per_class=3",
    "record.figures=false",
]


def test_list_names_every_study(capsys):
    main(["--list"])
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == [*studies(), "my.yaml"]


@pytest.fixture
def with_study(monkeypatch):
    """Let a study of these points, or grids, take another's place."""

    def change(name: str, **changes: object) -> Study:
        changed = replace(studies()[name], **changes)
        monkeypatch.setitem(studies(), name, changed)
        return changed

    return change


@pytest.fixture
def first_points(with_study):
    """Let the quick version of a study have so many points."""

    def change(name: str, count: int) -> Study:
        study = studies()[name]
        return with_study(name, versions={**study.versions, QUICK: study.chosen(QUICK)[:count]})

    return change


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["e9"], ("e9", "e2_width", "dufm", "real")),
        (["e2_dept"], ("e2_dept", "did you mean e2_depth?")),
        (["e1", "nonsense"], ("nonsense", "e2_width")),
        ([], ("no study", "dufm")),
        (["--frobnicate"], ("--frobnicate",)),
        (["e1", "--out"], ("--out",)),
        (["e1", "head.width=0"], ("head.width=0", ">= 1")),
        (["e1", "head.widht=3"], ("head.widht", "width")),
        (["e1", "head.depth=5"], ("head.depth", "e1")),
        (["e2_decay", "head.weight_decay=1"], ("head.weight_decay", "e2_decay")),
        (["e1", "--out", "file"], ("file",)),
        (["e3"], ("data.root=null", "folder")),
        (["e3", "data.root=/nowhere"], ("data.root=/nowhere",)),
        (["e1", "--jobs", "0"], ("--jobs", ">= 1")),
        (["e1", "--quick", "--cpu"], ("--cpu", "--quick")),
        (["e1", "--launcher", "basic"], ("--launcher", "e1", "real")),
        (["e3", "--quick", "--launcher", "basic"], ("--launcher", "--quick")),
        (["e1", "hydra.launcher.partition=gpu"], ("hydra.launcher.partition=gpu", "--launcher")),
        (["e4", "head.activation=relu", "data=digits"], ("head.activation", "e4")),
    ],
)
def test_bad_arguments_get_one_sentence_and_exit_2_and_leave_nothing(arguments, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    err = capsys.readouterr().err
    assert exit_.value.code == 2 and err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert all(part in err for part in parts)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> tuple[Path, str]:
    """A study, shrunk, as a real process in an empty folder."""
    folder = tmp_path_factory.mktemp("reproduction")
    return folder_for(folder, TINY), studied("e2_lr", "--quick", *TINY, "--docs", "docs", folder=folder)


def studied(*arguments: str, folder: Path) -> str:
    """What the command prints that makes studies in a folder."""
    done = commands().run("-m", "pipeline.studies", *arguments, folder=folder, python=forked_python())
    assert done.code == 0, done.err
    return done.out


def folder_for(folder: Path, overrides: list[str]) -> Path:
    """Where a quick study with these settings lies."""
    return folder_of(folder / "outputs" / "reproduction", QUICK, overrides)


def summaries(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted((out / "runs").glob("*/*/summary.json"))}


def test_a_study_leaves_runs_figures_tables_and_claims(reproduced):
    out, printed = reproduced
    assert list(summaries(out)) == ["lr_0.2", "lr_0.5", "lr_8.0"]
    assert (out / "figures" / "e2_lr.pdf").stat().st_size > 1000
    with Image.open(out / "figures" / "e2_lr.png") as image:
        assert image.size[0] > 500
    seeds = pd.read_csv(out / "tables" / "e2_lr.csv")
    assert len(seeds) == 6 and set(seeds.lr) == {0.2, 0.5, 8.0}
    claims = pd.read_csv(out / "tables" / "e2_lr_claims.csv")
    assert list(claims.columns) == ["study", "claim", "owner", "expected", "measured", "holds", "why"]
    # Twelve steps collapse nothing, and the table says so.
    gap = claims[claims.claim == "lr = 0.5: gap of the loss to the closed form"]
    assert (gap.holds.item(), gap.why.item(), gap.owner.item()) == ("no", "open", "ours")
    counts = "| ours | 2 | 1 | 1 | 0 |\n"
    text = (out / "tables" / "e2_lr_claims.md").read_text()
    assert text.count("\n") == len(claims) + 2 + 1 + 3 and text.endswith(counts)
    lines = printed.splitlines()
    assert [line.partition(",")[0] for line in lines[:3]] == ["[1/3", "[2/3", "[3/3"] and lines[3].startswith("Runs, ")
    assert lines[4].strip() == "What does not hold" and lines[-1] == "1 of 2 claims hold: ours 1 of 2."
    assert "lr = 0.5: gap of the loss" in printed and "lr = 8 is too large" not in printed
    docs = out.parents[3] / "docs"
    assert (docs / "e2_lr.png").stat().st_size < (out / "figures" / "e2_lr.png").stat().st_size
    assert (docs / "e2_lr_claims.csv").read_bytes() == (out / "tables" / "e2_lr_claims.csv").read_bytes()


def test_the_table_says_what_the_record_says(reproduced):
    out, _ = reproduced
    record = pd.read_csv(out / "runs" / "e2_lr" / "lr_0.5" / "record.csv")
    final = record[(record.metric == "loss") & (record.step == 12)].sort_values("seed").value
    table = pd.read_csv(out / "tables" / "e2_lr.csv").query("point == 'lr_0.5'").sort_values("seed").loss
    assert table.to_numpy() == pytest.approx(final.to_numpy(), rel=1e-6)


def test_a_second_call_repeats_nothing_and_force_repeats_all(reproduced, first_points, monkeypatch, caplog):
    out, _ = reproduced
    caplog.set_level("INFO")
    monkeypatch.chdir(out.parents[3])
    before = summaries(out)
    half_written = [out / "figures/.dnc-tmp-1-e2_lr.pdf", out / "tables/.dnc-tmp-1-e2_lr.csv"]
    for path in half_written:  # as by a process that was killed
        path.touch()
    main(["e2_lr", "--quick", *TINY])
    assert summaries(out) == before and not any(path.exists() for path in half_written)
    assert "3 of 3 runs were finished before" in caplog.text

    # From here on two of the runs are enough.
    first_points("e2_lr", 2)
    (out / "runs" / "e2_lr" / "lr_0.2" / "summary.json").write_text('{"status": "interrupted"}')
    main(["e2_lr", "--quick", *TINY])
    after = summaries(out)
    assert [name for name in before if before[name] != after[name]] == ["lr_0.2"]

    main(["e2_lr", "--quick", "--force", *TINY])
    assert [name for name in after if after[name] != summaries(out)[name]] == ["lr_0.2", "lr_0.5"]


def test_a_variation_leaves_what_is_finished_alone(reproduced, first_points, monkeypatch):
    folder = reproduced[0].parents[3]
    monkeypatch.chdir(folder)
    first_points("e2_lr", 2)
    out = folder / "outputs" / "reproduction" / "quick"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    main(["e2_lr", "--quick", *TINY, "head.init_scale=0.5"])
    assert all(path.read_bytes() == content for path, content in before.items())
    varied = folder_for(folder, [*TINY, "head.init_scale=0.5"])
    assert list(summaries(varied)) == ["lr_0.2", "lr_0.5"] and (varied / "figures" / "e2_lr.png").exists()


def test_a_finished_run_of_another_configuration_is_replaced_only_by_force(tmp_path, first_points, capsys):
    first_points("e2_lr", 1)
    arguments = ["e2_lr", "--quick", "--out", str(tmp_path), *TINY]
    main(arguments)
    (runs,) = tmp_path.rglob("runs")
    config = runs / "e2_lr" / "lr_0.2" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("steps: 12", "steps: 13"))
    before = summaries(runs.parent)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    err = capsys.readouterr().err
    assert exit_.value.code == 2 and "descent.steps=13, here 12" in err and "--force" in err
    assert summaries(runs.parent) == before
    main([*arguments, "--force"])
    assert summaries(runs.parent) != before


def test_runs_of_a_variation_from_the_time_before_it_had_a_folder_are_found(tmp_path, first_points, caplog):
    caplog.set_level("INFO")
    first_points("e2_lr", 1)
    arguments = ["e2_lr", "--quick", "--out", str(tmp_path), *TINY]
    main(arguments)
    (runs,) = tmp_path.rglob("runs")
    runs.rename(tmp_path / "quick" / "runs")
    caplog.clear()
    main(arguments)
    assert "1 of 1 runs were finished before" in caplog.text and not runs.exists()


def test_a_run_that_cannot_begin_is_told_in_one_sentence(tmp_path, first_points, capsys):
    first_points("e4", 1)
    with pytest.raises(SystemExit) as exit_:
        main(
            [
                "e4",
                "--quick",
                "--out",
                str(tmp_path),
                "data=digits",
                "data.classes=[0,1]",
                "data.samples_per_class=9999",
            ]
        )
    err = capsys.readouterr().err
    assert exit_.value.code == 2 and err.startswith("error: data.samples_per_class=9999") and err.count("\n") == 1


DIGITS = ["data=digits", "data.classes=[0,1]", "data.samples_per_class=20", "backbone.epochs=2", "record.figures=false"]


@pytest.fixture(scope="module")
def reproduced_networks(tmp_path_factory) -> tuple[Path, str]:
    """E4 on tiny networks, two at once, as a real process in an empty folder."""
    folder = tmp_path_factory.mktemp("networks")
    return folder, studied("e4", "--quick", "--jobs", "2", *DIGITS, "--docs", "docs", folder=folder)


def test_networks_trained_several_at_once_leave_runs_figures_tables_and_claims(reproduced_networks):
    folder, printed = reproduced_networks
    out = folder_for(folder, DIGITS)
    names = [point.name for point in studies()["e4"].chosen(QUICK)]
    assert sorted(summaries(out)) == sorted(names)
    assert f"[{len(names)}/{len(names)}, " in printed and "s left]" in printed
    networks = pd.read_csv(out / "tables" / "e4.csv").set_index("point")
    assert sorted(networks.index) == sorted(names) and (networks.samples_per_class == 20).all()
    assert networks.loc["width-width_4-seed_0", "width"] == 4
    layers = pd.read_csv(out / "tables" / "e4_layers.csv")
    assert set(layers.stage) == {"backbone", "head"} and {"dnc1", "test_dnc1", "test_ncm_accuracy"} <= set(
        layers.metric
    )
    claims = pd.read_csv(out / "tables" / "e4_claims.csv")
    assert "not decidable at this size" in set(claims.holds)  # two epochs fit nothing
    assert (
        "| owner | what the paper says, as recalled (not read) | measured |"
        in (out / "tables" / "e4_claims.md").read_text()
    )
    assert (folder / "docs" / "e4.png").stat().st_size > 1000


def test_the_table_of_networks_says_what_the_summaries_say(reproduced_networks):
    folder, _ = reproduced_networks
    out = folder_for(folder, DIGITS)
    for row in pd.read_csv(out / "tables" / "e4.csv").itertuples():
        summary = json.loads((out / "runs" / "e4" / row.point / "summary.json").read_text())
        last = summary["layers"][-1]
        assert (last["layer"], last["tap"]) == (row.depth, "post")
        assert row.dnc1 == pytest.approx(last["dnc1"][0], rel=1e-6)
        assert row.test_dnc2 == pytest.approx(last["test_dnc2"][0], rel=1e-6)
        assert row.train_accuracy == pytest.approx(summary["accuracy"]["train"][0], rel=1e-6)


def test_a_launcher_runs_the_sweeps_and_what_it_left_is_found_and_not_repeated(
    tmp_path, with_study, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(forked_python()))
    grid = Grid("depth", {"head.depth": (2, 3), "seed": (0,)})
    with_study("e4", versions={FULL: tuple(grid.points())}, grids=(grid,))
    arguments = ["e4", "--launcher", "basic", *DIGITS]
    main(arguments)
    (out,) = Path("outputs/reproduction").iterdir()  # the variation
    runs = out / "runs" / "e4"
    names = sorted(path.parent.name for path in runs.glob("*/summary.json"))
    assert [name.partition("-")[0] for name in names] == ["depth"] * 2 and [name[-2:] for name in names] == ["-0", "-1"]
    table = pd.read_csv(out / "tables" / "e4.csv")
    assert table.depth.tolist() == [2, 3] and "submitting e4 depth" in caplog.text
    caplog.clear()
    main(arguments)
    assert "submitting" not in caplog.text and "2 of 2 runs were finished before" in caplog.text
    write_summary(runs / names[1], {"status": "running"})  # as if the job had been killed
    caplog.clear()
    main(arguments)
    assert "head.depth=3" in caplog.text and "head.depth=2" not in caplog.text
    assert len(list(runs.glob("*/summary.json"))) == 3


def test_a_launcher_that_is_not_installed_fails_in_one_sentence(tmp_path, with_study, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    grid = Grid("depth", {"head.depth": (2,), "seed": (0,)})
    with_study("e4", versions={FULL: tuple(grid.points())}, grids=(grid,))
    with pytest.raises(SystemExit) as exit_:
        main(["e4", "--launcher", "nonsense", *DIGITS])
    err = capfd.readouterr().err.strip().splitlines()
    assert exit_.value.code != 0 and "nonsense" in err[0] and "Traceback" not in "".join(err)


def test_runs_that_another_process_submits_are_left_to_it(tmp_path, with_study, capfd):
    grid = Grid("depth", {"head.depth": (2,), "seed": (0,)})
    with_study("e4", versions={FULL: tuple(grid.points())}, grids=(grid,))
    runs = tmp_path / "data=digits,data.classes=0,1" / "runs"
    runs.mkdir(parents=True)
    lock = FolderLock(runs)
    with pytest.raises(SystemExit) as exit_:
        main(["e4", "--launcher", "basic", "--out", str(tmp_path), "data=digits", "data.classes=[0,1]"])
    assert exit_.value.code == 1 and "being submitted by process " in capfd.readouterr().err
    assert [path.name for path in runs.iterdir()] == [".dnc.lock"]
    lock.release()

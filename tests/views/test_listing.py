"""The list says of every run what became of it and what tells it apart, and nothing in a name can garble it."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import handmade
import pytest
import yaml
from rich.console import Console

from pipeline.runtime.errors import ConfigError
from pipeline.views.export import as_csv, as_json
from pipeline.views.html.columns import MOST_NUMBERS
from pipeline.views.html.formatting import age
from pipeline.views.html.runs import LocalRun, open_run, open_runs
from pipeline.views.listing import Listing, plain_lines, terminal_table
from pipeline.views.selection import chosen


def shown(runs, width: int = 300) -> list[str]:
    """The rows, in the order of the runs."""
    lines = printed(runs, width)
    first = next(index for index, line in enumerate(lines) if line.startswith("run "))
    return lines[first + 1 : first + 1 + len(runs)]


def printed(runs, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(terminal_table(Listing.of(runs), width))
    return captured.get().splitlines()


@pytest.fixture(scope="module")
def sixty(tmp_path_factory) -> Path:
    """A folder with sixty runs of a sweep over three settings, the last of which failed."""
    place = tmp_path_factory.mktemp("sixty")
    runs = []
    for index in range(60):
        folder = handmade.without_head(place / "multirun" / "a-long-name-of-a-sweep" / f"job-number-{index}")
        config = {"protocol": {"name": "p"}, "head": {"depth": 2 + index % 3, "width": 64}}
        config |= {"optimizer": {"lr": 0.1 / (1 + index % 5)}, "seed": index // 15, "logger": {"name": str(index)}}
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
        said = [f"head.depth={2 + index % 3}", f"optimizer.lr={config['optimizer']['lr']}", f"seed={index // 15}"]
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*said, f"logger.name={index}"]))
        os.utime(folder / "summary.json", (index, index))
        runs.append(folder)
    summary = {"status": "failed", "protocol": "p", "error": "RunError: it diverged, and that in many words"}
    (runs[-1] / "summary.json").write_text(json.dumps(summary))
    return place


@pytest.fixture
def grid(sixty, monkeypatch) -> list[LocalRun]:
    """These runs, looked at from the folder above them."""
    monkeypatch.chdir(sixty)
    return open_runs([sixty])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_runs_of_a_sweep_are_told_apart_in_any_terminal(grid, width):
    lines = printed(grid, width)
    assert max(map(len, lines)) <= width and len(lines) <= len(grid) + 8  # heading, columns, caption
    assert "60 runs in" in lines[0]
    rows = shown(grid, width)
    for run, row in zip(grid, rows, strict=True):
        assert row.split()[0] == run.folder.name and run.status in row
        config = run.config
        assert row.split()[1:4].count(str(config["head"]["depth"])) >= 1
        assert f"{config['optimizer']['lr']:.12g}" in row.split() and str(config["seed"]) in row.split()
    assert len({" ".join(row.split()[1:4]) for row in rows}) == 60
    assert not any("logger" in line or "64" in line for line in lines)


def test_columns_that_had_to_go_are_named(grid):
    narrow, wide = (" ".join(" ".join(printed(grid, width)).split()) for width in (60, 250))
    assert "Not shown at this width" in narrow and "Not shown" not in wide and "it diverged" in wide


def test_a_pipe_gets_every_column_and_the_same_twice(grid):
    lines = plain_lines(Listing.of(grid))
    assert lines == plain_lines(Listing.of(grid)) and len(lines) == 2 + 60
    assert "1970-01-01T00:00:07Z" in lines[2 + 7] and not any("\x1b" in line or "│" in line for line in lines)
    assert "and that in many words" in lines[-1]


def test_programs_get_numbers(grid):
    made = json.loads(as_json(Listing.of(grid)))
    assert [one["settings"]["seed"] for one in made] == [index // 15 for index in range(60)]
    assert all(set(one["settings"]) == {"head.depth", "optimizer.lr", "seed"} for one in made)
    rows = list(csv.DictReader(io.StringIO(as_csv(Listing.of(grid)))))
    for run, one, row in zip(grid, made, rows, strict=True):
        assert float(row["optimizer.lr"]) == one["settings"]["optimizer.lr"] == run.config["optimizer"]["lr"]
        assert one["status"] == row["status"] and one["folder"] == row["folder"] == str(run.folder)
        assert one["results"] == {entry.name: entry.value for entry in run.headline}


def test_runs_are_chosen_and_ordered_by_any_setting_or_number(grid):
    assert [run.folder.name for run in chosen(grid, limit=2)] == ["job-number-59", "job-number-58"]
    deep = chosen(grid, where=["depth=4", "optimizer.lr=0.1"], sort="seed")
    assert [run.config["seed"] for run in deep] == [0, 1, 2, 3] and {run.config["head"]["depth"] for run in deep} == {4}
    assert [run.status for run in chosen(grid, status=["failed"])] == ["failed"]
    rates = [run.config["optimizer"]["lr"] for run in chosen(grid, sort="lr", reverse=True)]
    assert rates == sorted(rates, reverse=True)
    listing = Listing.of(deep, grid)
    assert listing.heading.startswith("4 of 60 runs in") and "head.depth=4" in listing.heading


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"where": ["depht=4"]}, "did you mean depth?"),
        ({"where": ["depth"]}, "key=value"),
        ({"where": ["nokey=3"]}, "no run has it; allowed: a setting: optimizer.lr, "),  # in which they differ
        ({"sort": "nokey"}, "allowed: a setting or a column: run, status, "),
        ({"status": ["done"]}, "allowed: completed"),
        ({"sort": "optimiser.lr"}, "did you mean optimizer.lr?"),
    ],
)
def test_what_no_run_has_is_refused_in_a_sentence(grid, asked, said):
    with pytest.raises(ConfigError, match="allowed: ") as refused:
        chosen(grid, **asked)
    assert said in str(refused.value)


def test_two_settings_that_end_alike_are_not_guessed_between(tmp_path):
    folder = handmade.without_head(tmp_path / "run")
    (folder / ".hydra" / "config.yaml").write_text("{optimizer: {decay: 1}, head: {decay: 2}}")
    with pytest.raises(ConfigError, match=r"optimizer\.decay, head\.decay|head\.decay, optimizer\.decay"):
        chosen([LocalRun(folder, "run")], sort="decay")


def test_every_run_has_a_line_with_its_status_and_numbers(sweep, killed):
    runs = [*open_runs([sweep]), open_run(killed)]
    lines = shown(runs)
    assert len(lines) == 3
    completed = next(line for line in lines if " completed " in line)
    for name in ("gap_to_optimum", "dnc1", "dnc2", "dnc3"):
        assert f" {runs[0].known_by(name):.3g} " in completed
    failed = next(line for line in lines if " failed " in line)
    assert "RunError: the head diverged" in failed and " - " in failed
    assert any(" killed " in line and "digits / mlp" in line for line in lines)


def test_the_columns_are_those_that_runs_with_a_head_have_always_had(sweep):
    line = next(line for line in printed(open_runs([sweep]), 300) if line.startswith("run "))
    heads = line.split()
    assert heads[0] == "run" and heads[-6:] == ["gap", "DNC1", "DNC2", "DNC3", "collapse", "age"]


def test_runs_of_any_kind_have_a_line_and_no_kind_hides_another(sweep, killed, handmade_runs):
    (killed / "summary.json").write_text('{"status": "completed", "protocol": "p", "verdict": null}')
    runs = [*open_runs([sweep]), open_run(killed), *handmade_runs.values()]
    lines = shown(runs, 600)
    assert len(lines) == len(runs)
    line = {name: next(line for line in lines if f"/{name} " in line) for name in handmade_runs}
    assert " 0.0909 " in line["no head"] and " 0.932 " in line["no head"]
    assert "pruned" in line["two stages"] and " 0.5 " in line["two stages"]
    assert "0.01" in line["no layers"] and " completed " in line["nothing"]
    assert any(" unreadable " in line and "verdict is null" in line for line in lines)
    assert any(" completed " in line and f" {runs[0].known_by('dnc1'):.3g} " in line for line in lines)


def test_numbers_that_have_no_column_are_told_in_words(handmade_runs):
    entries = [handmade.entry(f"n{i}", f"number {i}", i / 10) for i in range(MOST_NUMBERS + 2)]
    folder = handmade_runs["nothing"].folder
    (folder / "summary.json").write_text(json.dumps(handmade.summary("silent", headline=entries)))
    (line,) = shown([LocalRun(folder, "many")], 500)
    assert f"number {MOST_NUMBERS} 0.6, number {MOST_NUMBERS + 1} 0.7" in line


def test_the_latest_run_comes_first(sweep, copied):
    old, new = (copied(sweep / "0", name) for name in ("old", "new"))
    os.utime(old / "summary.json", (0, 0))
    lines = shown(chosen([LocalRun(old, "old"), LocalRun(new, "new")]))
    assert "new" in lines[0] and "old" in lines[1] and lines[1].rstrip().endswith(" d")


def test_square_brackets_in_a_name_are_no_markup(sweep, tmp_path):
    folder = tmp_path / "[red]x[" / "nothing]"
    shutil.copytree(sweep / "0", folder)
    assert "[red]x[" in printed([LocalRun(folder, "x")], 200)[0] and shown([LocalRun(folder, "x")])[0].startswith(
        "nothing]"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 10, "10 d")]
)
def test_ages_are_in_their_largest_unit(seconds, text):
    assert age(seconds) == text

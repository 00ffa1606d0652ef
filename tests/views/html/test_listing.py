"""The list says of every run what became of it, and nothing in a name can garble it."""

import json
import os

import handmade
import pytest
from rich.console import Console

from pipeline.views.html.columns import MOST_NUMBERS
from pipeline.views.html.formatting import age
from pipeline.views.html.listing import runs_table
from pipeline.views.html.runs import LocalRun, open_run, open_runs


def shown(runs) -> list[str]:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(runs_table(runs))
    return [line for line in captured.get().splitlines() if "│" in line]


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
    console = Console(width=300)
    with console.capture() as captured:
        console.print(runs_table(open_runs([sweep])))
    heads = [
        cell.strip() for cell in next(line for line in captured.get().splitlines() if "┃" in line).split("┃")[1:-1]
    ]
    assert [heads[0], *heads[-6:]] == ["run", heads[-6], "DNC1", "DNC2", "DNC3", "collapse", "age"]
    assert heads[-6].startswith("gap")


def test_runs_of_any_kind_have_a_line_and_no_kind_hides_another(sweep, killed, handmade_runs):
    (killed / "summary.json").write_text('{"status": "completed", "protocol": "p", "verdict": null}')
    runs = [*open_runs([sweep]), open_run(killed), *handmade_runs.values()]
    lines = shown(runs)
    assert len(lines) == len(runs)
    line = {name: next(line for line in lines if f" {name} " in line) for name in handmade_runs}
    assert " 0.0909 " in line["no head"] and " 0.932 " in line["no head"]
    assert "pruned" in line["two stages"] and " 0.5 " in line["two stages"]
    assert "0.01" in line["no layers"] and " completed " in line["nothing"]
    assert any(" unreadable " in line and "verdict is null" in line for line in lines)
    assert any(" completed " in line and f" {runs[0].known_by('dnc1'):.3g} " in line for line in lines)


def test_numbers_that_have_no_column_are_told_in_words(handmade_runs):
    entries = [handmade.entry(f"n{i}", f"number {i}", i / 10) for i in range(MOST_NUMBERS + 2)]
    folder = handmade_runs["nothing"].folder
    (folder / "summary.json").write_text(json.dumps(handmade.summary("silent", headline=entries)))
    (line,) = shown([LocalRun(folder, "many")])
    assert f"number {MOST_NUMBERS} 0.6, number {MOST_NUMBERS + 1} 0.7" in line


def test_the_latest_run_comes_first(sweep, copied):
    old, new = (copied(sweep / "0", name) for name in ("old", "new"))
    os.utime(old / "summary.json", (0, 0))
    lines = shown([LocalRun(old, "old"), LocalRun(new, "new")])
    assert "new" in lines[0] and "old" in lines[1] and " d " in lines[1]


def test_square_brackets_in_a_name_are_no_markup(sweep):
    assert any("[red]x[/nothing]" in line for line in shown([LocalRun(sweep / "0", "[red]x[/nothing]")]))


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 10, "10 d")]
)
def test_ages_are_in_their_largest_unit(seconds, text):
    assert age(seconds) == text

"""The list says of every run what became of it, and nothing in a name can garble it."""

import os

import pytest
from rich.console import Console

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
    for value in (runs[0].gap, *runs[0].last_layer.values()):
        assert f" {value:.3g} " in completed
    failed = next(line for line in lines if " failed " in line)
    assert "RunError: the head diverged" in failed and " - " in failed
    assert any(" killed " in line and "digits / mlp" in line for line in lines)


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

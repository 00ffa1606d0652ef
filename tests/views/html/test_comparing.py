"""Two runs are compared by what differs, and by nothing else."""

from itertools import permutations

from rich.console import Console

from pipeline.views.html.comparing import comparison_table, differing, results
from pipeline.views.html.runs import LocalRun, open_runs


def shown(table) -> list[list[str]]:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(table)
    lines = [line for line in captured.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_only_what_differs_is_listed():
    first, second = {"a": 1, "b": [1, 2], "c": None}, {"a": 1, "b": [1, 3], "d": True}
    assert differing([first, second]) == {
        "b": ["[1, 2]", "[1, 3]"],
        "c": ["null", "(absent)"],
        "d": ["(absent)", "true"],
    }


def test_values_that_look_alike_are_given_with_all_their_digits():
    assert differing([{"a": 0.123456789}, {"a": 0.123456780}]) == {"a": ["0.123456789", "0.12345678"]}
    assert differing([{"a": 0.5}, {"a": 0.25}, {"a": 0.5}]) == {"a": ["0.5", "0.25", "0.5"]}


def test_a_change_of_one_setting_and_one_number_is_found(sweep, copied):
    def change(summary):
        summary["loss"]["total"][1] = 77.0
        summary["environment"]["threads"] = 9

    other = copied(sweep / "0", "other", change)
    config = other / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0\n", "seed: 5\n", 1))
    rows = shown(comparison_table(LocalRun(sweep / "0", "a"), LocalRun(other, "[b]")))
    assert [row[0] for row in rows] == ["configuration", "seed", "results", "loss.total", "environment", "threads"]
    assert rows[1] == ["seed", "0", "5"] and "77" in rows[3][2] and rows[5][1:] == ["1", "9"]


def test_a_run_does_not_differ_from_itself(digits_run):
    assert comparison_table(LocalRun(digits_run, "a"), LocalRun(digits_run, "b")) is None


def test_a_failed_run_is_compared_by_its_status(sweep):
    completed, failed = open_runs([sweep])
    rows = {row[0]: row[1:] for row in shown(comparison_table(completed, failed))}
    assert rows["status"] == ["completed", "failed"] and rows["descent.lr"] == ["0.5", "1e+06"]
    assert rows["head 3 post DNC1"][1] == "(absent)" and "diverged" in rows["verdict"][1]
    assert set(results(failed)) == {"status", "verdict"}


def test_runs_of_different_kinds_are_compared_by_what_each_has(sweep, handmade_runs):
    rows = {row[0]: row[1:] for row in shown(comparison_table(LocalRun(sweep / "0", "a"), handmade_runs["two stages"]))}
    assert rows["head 3 post DNC1"][1] == "(absent)" and rows["idle units"] == ["(absent)", "0.5"]
    assert rows["pruning.rounds"] == ["(absent)", "[1, 2, 5]"] and rows["verdict"][1] == "(absent)"
    for first, second in permutations(handmade_runs.values(), 2):
        assert comparison_table(first, second).row_count > 0
    assert results(handmade_runs["nothing"])["title"] == "the run silent completed"

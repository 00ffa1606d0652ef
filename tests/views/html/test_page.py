"""The report says what the run folder says, whatever became of the run."""

import base64
import gzip
import hashlib
import json
import re
from html import unescape

import handmade
import pytest

from pipeline.views.html import across
from pipeline.views.html.assets import plotly
from pipeline.views.html.columns import Columns
from pipeline.views.html.page import page
from pipeline.views.html.runs import LocalRun, open_runs


def told(runs) -> str:
    """The page without its scripts' own text, as one line of plain text."""
    made = re.sub(r"<(script|style).*?</\1>", "", page(runs), flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", made)).split())


def charts(runs) -> list[dict]:
    return [json.loads(found) for found in re.findall(r'class="chart-data">(.*?)</script>', page(runs), re.S)]


def test_the_verdict_comes_first_and_every_number_of_its_table_is_there(digits_run):
    run = LocalRun(digits_run, "digits")
    text, found = told([run]), run.summary.written["verdict"]
    sentence = found["text"][0].upper() + found["text"][1:]
    assert text.index(sentence) < text.index("status") < text.index("DNC1 ≤ 0.01")
    for place in found["layers"]:
        assert f"{place['tap']} {place['dnc1']['value']:.3g}" in text


def test_configuration_environment_and_command_are_there(digits_run):
    text = told([LocalRun(digits_run, "digits")])
    for part in ("head.depth 3", "backbone.epochs 2", "dnc backbone.epochs=2 descent.steps=200", "torch 2."):
        assert part in text
    assert "arXiv 2305.13165" in text and "@software{deep_neural_collapse" in text


def test_plotly_is_in_the_file_once_and_nothing_is_fetched(sweep):
    made = page(open_runs([sweep]))
    (packed,) = re.findall(r'id="plotly">(.*?)</script>', made)
    assert gzip.decompress(base64.b64decode(packed)).decode() == plotly() and "plotly.js v" in plotly()[:200]
    assert "plotly.js v" not in made and len(made) < 3e6
    kinds = re.findall(r"<script([^>]*)>", made)
    assert kinds.count("") == 1 and all(
        kind == "" or "application/json" in kind or "text/plain" in kind for kind in kinds
    )
    assert "<link" not in made and not re.search(r"""(src|href)=["'](https?:)?//""", made.split('id="plotly"')[0])


def test_only_the_scripts_that_are_carried_may_run(sweep):
    made = page(open_runs([sweep]))
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', made)[1])
    allowed = set(re.findall(r"'sha256-([^']*)'", policy))
    (own,) = re.findall(r'id="page">(.*?)</script>', made, re.S)
    (first,) = re.findall(r"<script>(.*?)</script>", made, re.S)
    digests = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (plotly(), own, first)}
    assert allowed == digests and policy.startswith("default-src 'none'; script-src 'sha256-")


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> list[LocalRun]:
    """Sixteen runs over two settings and seeds: too many to be shown in full."""
    place = tmp_path_factory.mktemp("grid")
    for index in range(16):
        folder = handmade.without_head(place / str(index))
        settings = {"head.depth": 10 - index % 2, "optimizer.lr": (0.1, 0.003)[index // 2 % 2], "seed": index // 4}
        (folder / ".hydra" / "config.yaml").write_text("\n".join(f"{key}: {value}" for key, value in settings.items()))
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([f"{k}={v}" for k, v in settings.items()]))
    return open_runs([place])


def test_of_many_runs_rows_tell_settings_first_and_are_not_all_drawn(grid):
    made = page(grid)
    head = re.search(r'<table class="overview sortable">.*?<thead>(.*?)</thead>', made, re.S)[1]
    labels = re.findall(r"<th[^>]*>([^<]*)</th>", head)
    assert labels[:5] == ["run", "depth", "lr", "seed", "status"] and "DNC1" in labels and "protocol" not in labels
    assert "16 are too many for one page" in told(grid) and made.count("<article") == 16
    assert len(charts(grid)) < 20
    text = told(grid)
    assert "head.depth 10 (8 runs), 9 (8 runs)" in text and "A cell is the worst run over seed" in text


def test_a_heat_map_has_the_worst_number_of_each_cell_in_the_order_of_the_settings(grid):
    values = iter(range(1, 100))
    for run in grid:
        written = run.summary.written
        entries = [
            entry | {"value": next(values) / 10} if entry["name"] == "dnc1" else entry for entry in written["headline"]
        ]
        (run.folder / "summary.json").write_text(json.dumps(written | {"headline": entries}))
    runs = [LocalRun(run.folder, run.name) for run in grid]
    maps = [chart for chart in charts(runs) if chart["data"][0]["meta"]["role"] == "heat"]
    chart = next(chart for chart in maps if chart["data"][0]["text"][0][0] not in ("", "1.09", "0.955", "0.932"))
    # Over seeds, which have more values than either setting, but only repeat a run.
    rows = {"head.depth": [9, 10], "optimizer.lr": [0.003, 0.1]}
    assert chart["layout"]["yaxis"]["title"]["text"] == "head.depth" and chart["data"][0]["y"] == ["9", "10"]
    assert chart["data"][0]["x"] == ["0.003", "0.1"]

    def worst(depth: int, rate: float) -> str:
        inside = (run for run in runs if (run.config["head.depth"], run.config["optimizer.lr"]) == (depth, rate))
        return f"{max(run.known_by('dnc1') for run in inside):.3g}"

    wanted = [[worst(depth, rate) for rate in rows["optimizer.lr"]] for depth in rows["head.depth"]]
    assert chart["data"][0]["text"] == wanted


def test_curves_can_be_coloured_by_any_setting_that_groups_runs(grid):
    (found,) = re.findall(r'class="palettes">(.*?)</script>', page(grid), re.S)
    palettes = json.loads(found)
    assert list(palettes) == ["run", "head.depth", "optimizer.lr", "seed"]
    for key in ("seed", "head.depth", "optimizer.lr"):
        colors = {run.config[key]: tuple(pair) for run, pair in zip(grid, palettes[key], strict=True)}
        assert len(set(colors.values())) == len(colors) == len({run.config[key] for run in grid})


def test_of_a_crowd_of_runs_some_have_curves_both_ends_among_them_and_the_page_says_which(grid, monkeypatch):
    monkeypatch.setattr(across, "MOST_CURVES", 5)
    first = next(iter(Columns.of(grid).numbers))
    order = sorted(range(len(grid)), key=lambda index: grid[index].known_by(first))
    found, said = across.drawn(grid)
    assert found == {order[index] for index in (0, 4, 8, 11, 15)}
    read = []
    monkeypatch.setattr(LocalRun, "record", lambda run: (read.append(run.name), record(run))[1])
    made = told(grid)
    assert said.startswith("5 of the 16 runs are drawn") and said in made
    assert sorted(read) == sorted(grid[index].name for index in found), "other records need not be read"
    assert len(re.findall(r'data-key="run"', page(grid))) == 5


record = LocalRun.record


@pytest.mark.parametrize("pieces", [("0",), ("0", "1")])
def test_every_chart_has_an_accessible_name_and_a_caption(sweep, pieces):
    made = page(open_runs([sweep / piece for piece in pieces]))
    plots = re.findall(r'<div class="plot" role="img" aria-label="([^"]*)">', made)
    assert len(plots) == made.count('class="plot"') == made.count("<figcaption><strong>") > 10
    assert all(len(name) > 20 for name in plots)


def test_a_failed_run_is_reported_as_such_with_what_it_recorded(sweep):
    failed = open_runs([sweep / "1"])
    text = told(failed)
    assert "the run failed (RunError: the head diverged for every seed" in text
    assert "This run failed; what it had recorded until then is shown below." in text
    assert "Not drawn: the run has no tensors.safetensors." in text and "Final metrics" in text


def test_a_killed_run_is_reported_as_such_without_a_record(killed):
    text = told([LocalRun(killed, "killed")])
    assert "No verdict: the run was killed" in text and "Nothing to draw: the run has no record.csv" in text
    assert "head.depth 3" in text and charts([LocalRun(killed, "killed")]) == []


def test_runs_that_left_no_record_can_be_compared_with_those_that_did(sweep, killed):
    text = told([*open_runs([sweep]), LocalRun(killed, "killed")])
    assert "3 runs (1 completed, 1 failed, 1 killed)" in text and "Settings that differ" in text


def test_the_gap_is_drawn_where_there_is_an_optimum(sweep, digits_run):
    assert "Relative gap of the loss" in told(open_runs([sweep / "0"]))
    text = told([LocalRun(digits_run, "digits")])
    assert "Relative gap of the loss" not in text and "No closed-form value: the input features are frozen" in text


def test_every_trace_says_what_hides_and_colours_it(digits_run, sweep):
    for runs in ([LocalRun(digits_run, "digits")], open_runs([sweep])):
        roles = {trace["meta"]["role"] for chart in charts(runs) for trace in chart["data"]}
        assert roles - {"heat"} == {"line", "band", "reference", "gram"}


def test_the_report_of_a_fixed_head_says_how_near_the_network_came(copied, digits_run):
    found = {"solution": "constructed", "alignment_rotated": 0.97123, "relative_gap": 0.5, "unseen_share": None}
    folder = copied(digits_run, "fixed", lambda summary: summary.update(fixed_head=found))
    text = told([LocalRun(folder, "fixed")])
    assert "Against the DUFM" in text and "alignment rotated 0.9712" in text and "unseen share null" in text


def empty_panels(runs) -> list[str]:
    """Charts without a point, and headings with nothing below them."""
    points = [sum(len(trace.get("y") or trace.get("z") or ()) for trace in chart["data"]) for chart in charts(runs)]
    bare = re.findall(r"<h([2-5])>([^<]*)</h\1>(?=<h\1>|</section>|</article>)", page(runs))
    return [f"chart {index}" for index, count in enumerate(points) if count == 0] + [title for _, title in bare]


def test_a_run_without_a_head_has_its_headline_the_curves_of_its_stages_and_its_profile(handmade_runs):
    run = handmade_runs["no head"]
    text = told([run])
    assert text.index("DNC1 0.0909") < text.index("train accuracy 0.955") < text.index("Over training")
    titles = [match for match in re.findall(r"<figcaption><strong>([^<]*)", page([run]))]
    assert titles == [
        "DNC1: within / between variability",
        "DNC2: condition number of class means",
        "Loss of the classifier",
        "Accuracy",
        "DNC1: within / between variability",
        "DNC2: condition number of class means",
    ]
    for absent in ("threshold", "Class means, layer by layer", "loss of the head", "gap"):
        assert absent not in text
    assert empty_panels([run]) == []


def test_stages_metrics_and_sections_of_other_names_are_shown_under_them(handmade_runs):
    run = handmade_runs["two stages"]
    text = told([run])
    for part in ("Growing", "Share of idle units", "rounds [1, 2, 5]", "by.magnitude true", "weights kept 123456"):
        assert part in text
    assert "Pruning: block1 post" in text and empty_panels([run]) == []
    units = {chart["layout"]["xaxis"].get("title", {}).get("text") for chart in charts([run])}
    assert {"round", "epoch"} <= units


@pytest.mark.parametrize("kind", ["no layers", "nothing"])
def test_what_was_not_recorded_has_no_panel(kind, handmade_runs):
    text = told([handmade_runs[kind]])
    assert "Layer by layer" not in text and empty_panels([handmade_runs[kind]]) == []


def test_runs_of_all_kinds_stand_in_one_report(sweep, killed, handmade_runs):
    runs = [*open_runs([sweep]), LocalRun(killed, "killed"), *handmade_runs.values()]
    text = told(runs)
    assert "7 runs (5 completed, 1 failed, 1 killed)" in text
    compared = page(runs).split('aria-label="Comparison"')[1].split("</section>")[0]
    assert "Share of idle units, last layer" in compared and "layer, in the order of the data" in compared
    assert compared.count('class="plot"') >= 6 and empty_panels(runs) == []

"""Figures draw what the record says."""

import json

import handmade
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from readable import assert_readable

from pipeline.storage.record import Row, read_record
from pipeline.views import style
from pipeline.views.figures import plot_loss, plot_over_steps, plot_profile, run_figure, save_figure

STEPS = (0, 1, 10, 100)


@pytest.fixture
def frame() -> pd.DataFrame:
    """Two head layers, two seeds (values 1x and 4x), one backbone block."""
    rows = []
    for step in STEPS:
        for seed, factor in ((0, 1.0), (1, 4.0)):
            rows.append(Row("head", step, seed, "", "", "loss", factor / (1 + step)))
            for layer, tap in (("1", "pre"), ("2", "pre"), ("2", "post")):
                for metric in ("dnc1", "dnc2", "dnc3"):
                    rows.append(Row("head", step, seed, layer, tap, metric, factor * int(layer) / (1 + step)))
    rows += [Row("backbone", 5, 0, "network.hidden1", "post", metric, 9.0) for metric in ("dnc1", "dnc2")]
    return pd.DataFrame(rows, columns=Row._fields)


@pytest.fixture
def axes():
    return Figure().subplots()


def test_a_line_per_layer_and_tap_is_the_geometric_mean_over_seeds(frame, axes):
    plot_over_steps(frame, "dnc1", axes)
    assert len(axes.get_lines()) == 3
    line = axes.get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), STEPS[1:])
    np.testing.assert_allclose(line.get_ydata(), [2.0 / (1 + step) for step in STEPS[1:]])  # sqrt(1 * 4) = 2
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_dnc2_marks_the_orthogonal_frame_at_one(frame, axes):
    plot_over_steps(frame, "dnc2", axes)
    assert list(axes.get_lines()[-1].get_ydata()) == [1.0, 1.0]


def test_what_a_logarithmic_axis_cannot_show_is_left_out(frame, axes, tmp_path):
    frame.loc[frame.metric == "dnc2", "value"] = np.inf
    plot_over_steps(frame, "dnc2", axes)
    axes.figure.savefig(tmp_path / "figure.png")
    assert len(axes.get_lines()) == 1  # the frame's


def test_the_loss_has_a_line_per_seed_and_one_for_the_optimum(frame, axes):
    plot_loss(frame, 0.25, axes)
    assert len(axes.get_lines()) == 3 and list(axes.get_lines()[-1].get_ydata()) == [0.25, 0.25]
    without = Figure().subplots()
    plot_loss(frame, None, without)
    assert len(without.get_lines()) == 2


def dots(axes, marker: str, *, filled: bool) -> dict[int, float]:
    """Place on the axis -> value, of the dots of one kind."""
    own = [line for line in axes.get_lines() if line.get_marker() == marker]
    shown = [line for line in own if (line.get_markerfacecolor() != "white") == filled]
    return {round(x): y for line in shown for x, y in zip(*map(list, line.get_data()), strict=True)}


def test_the_profile_puts_backbone_blocks_before_head_layers(frame, axes):
    plot_profile(frame, "dnc1", axes, threshold=0.1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["hidden1", "$H_{1}$", "$H_{2}$"]
    assert dots(axes, "o", filled=True) == pytest.approx({0: 9.0, 2: 2 * 2.5 / 101})
    assert dots(axes, "o", filled=False) == pytest.approx({1: 2.5 / 101, 2: 2 * 2.5 / 101})


def test_the_profile_of_a_metric_of_weights_names_them_and_leaves_out_what_has_none(frame, axes):
    plot_profile(frame, "dnc3", axes)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["$W_{1}$", "$W_{2}$"]


def test_the_same_record_gives_the_same_files(frame, tmp_path):
    summary = {
        "verdict": {"thresholds": {"dnc1": 1e-2, "dnc2": 1.1, "dnc3": 0.1}, "text": "a verdict"},
        "loss": {"optimum": 0.2},
        "problem": {"num_classes": 2, "depth": 2},
        "seeds": [0, 1],
    }
    files = [save_figure(run_figure(frame, summary), tmp_path / name, "collapse") for name in ("a", "b")]
    assert [path.name for path in files[0]] == ["collapse.png", "collapse.pdf"]
    for first, second in zip(*files, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_seeds_with_one_and_the_same_value_have_a_dot_and_no_bar(axes):
    value = 0.1 + 0.2  # the mean of three of these is not this
    rows = [Row("head", 5, seed, "1", "pre", "dnc1", value) for seed in (0, 1, 2)]
    plot_profile(pd.DataFrame(rows, columns=Row._fields), "dnc1", axes)
    assert dots(axes, "o", filled=False) == pytest.approx({0: value}) and not axes.collections


def test_bars_span_the_seeds(frame, axes):
    plot_profile(frame, "dnc1", axes)
    spans = [segment[:, 1].tolist() for bars in axes.collections for segment in bars.get_segments()]
    np.testing.assert_allclose(sorted(spans), [[k / 101, 4 * k / 101] for k in (1, 2, 2)])


def test_the_profile_shows_the_test_split_beside_the_training_split(frame, axes):
    rows = [Row("head", 100, seed, "2", "post", "test_dnc1", 7.0) for seed in (0, 1)]
    plot_profile(pd.concat([frame, pd.DataFrame(rows, columns=Row._fields)]), "dnc1", axes)
    assert dots(axes, "^", filled=True) == {2: 7.0}
    places = {round(x, 3) for line in axes.get_lines() if line.get_marker() in "o^" for x in line.get_xdata()}
    assert len([place for place in places if round(place) == 2]) == 3  # neither split, neither tap hides another


@pytest.mark.parametrize("value", [np.nan, 0.0], ids=["undefined", "classes of one image"])
def test_values_a_log_axis_cannot_show_are_left_out(value, frame):
    frame.loc[frame.metric == "dnc1", "value"] = value
    over_steps, profile = Figure().subplots(1, 2)
    plot_over_steps(frame, "dnc1", over_steps)
    plot_profile(frame, "dnc1", profile)
    over_steps.figure.draw_without_rendering()
    assert all(len(line.get_ydata()) == 0 for axes in (over_steps, profile) for line in axes.get_lines())


def figure_of(kind: str, folder) -> Figure | None:
    run = handmade.KINDS[kind](folder / "run")
    return run_figure(read_record(run), json.loads((run / "summary.json").read_text()))


def drawn(figure: Figure) -> list[str]:
    """What the panels show that show something; none may show nothing."""
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert all(axes.get_lines() or axes.collections for axes in panels)
    return [axes.get_ylabel().replace("\n", " ") for axes in panels]


def test_a_run_without_a_head_shows_its_stages_and_its_layers(tmp_path):
    figure = figure_of("no head", tmp_path)
    metrics = ["DNC1: within / between variability", "DNC2: condition number of class means"]
    assert drawn(figure) == [*metrics, "loss", *metrics]
    assert "last place of the network" in figure.get_suptitle().replace("\n", " ")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"conv1", "block1", "block2", "value at collapse"} <= set(legend) and "threshold" not in legend
    assert_readable(figure)


def test_every_stage_has_a_row_with_its_own_unit_and_a_linear_metric_a_linear_axis(tmp_path):
    figure = figure_of("two stages", tmp_path)
    *stages, ends = [axes for axes in figure.axes if axes.get_ylabel() == "Share of idle units"]
    assert [axes.get_xlabel().replace("\n", " ") for axes in stages] == ["epoch (Growing)", "round (Pruning)"]
    assert {axes.get_yscale() for axes in stages} == {"linear"}
    assert all(list(axes.get_lines()[-1].get_ydata()) == [0.5, 0.5] for axes in stages)  # the value at collapse
    labels = [label.get_text() for label in ends.get_xticklabels()]
    assert len(labels) == 6 and labels[-1] == "Pruning: block2"
    assert_readable(figure)


def test_a_run_without_layers_shows_its_numbers_and_one_without_numbers_has_no_figure(tmp_path):
    assert drawn(figure_of("no layers", tmp_path / "a")) == ["distance"]
    assert figure_of("nothing", tmp_path / "b") is None
    assert save_figure(None, tmp_path, "nothing") == [] and not list(tmp_path.glob("nothing.*"))


def test_seeds_that_diverged_are_counted_in_their_panel(frame):
    summary = {"verdict": {"thresholds": {}, "text": "none"}, "loss": {"total": [0.1, None]}, "seeds": [0, 1]}
    said = [text.get_text() for axes in run_figure(frame, summary).axes for text in axes.texts]
    assert [text.replace("\n", " ") for text in said] == ["1 of 2 seeds diverged"]


@pytest.mark.parametrize("medium", style.PAPER)
def test_a_run_is_readable_in_print(frame, medium, tmp_path):
    with style.drawn_for(medium):
        figure = run_figure(frame, {"verdict": {"thresholds": {"dnc1": 1e-2}, "text": "a verdict"}})
    assert_readable(figure, medium)
    assert set(drawn(figure)) == {"DNC1", "DNC2", "DNC3", "loss of the head"}


def test_what_was_solved_on_the_way_to_a_head_is_left_out(frame, axes):
    solved = [Row("dufm", 100, 0, layer, "pre", "dnc1", 5.0) for layer in ("1", "2")]
    plot_profile(pd.concat([frame, pd.DataFrame(solved, columns=Row._fields)]), "dnc1", axes)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["hidden1", "$H_{1}$", "$H_{2}$"]


def test_a_metric_that_nobody_knows_is_drawn_under_its_name(frame, axes):
    frame.loc[frame.metric == "dnc1", "metric"] = "brand_new"
    assert plot_over_steps(frame, "brand_new", axes).get_ylabel() == "brand new" and len(axes.get_lines()) == 3

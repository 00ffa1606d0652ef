"""Sheets fit their medium: panels wrap, long words break, labels stay apart, files are what a journal takes."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from readable import as_pdf, assert_readable, fonts_of, pale, shown_texts

from pipeline.views import marks, style
from pipeline.views.labels import apart
from pipeline.views.measured import text_width, wrapped
from pipeline.views.sheet import Sheet

LONG = "no deep neural collapse: " + ", ".join(f"DNC{number} nowhere in the head" for number in range(12))


def sheet_of(medium: str, columns: int = 3, **more):
    """A sheet with long titles, labels, names and a legend."""
    with style.drawn_for(medium), Sheet(2, columns, title=LONG, **more) as sheet:
        for row in range(2):
            for column, axes in enumerate(sheet.row(row)):
                axes.plot([1, 2, 3], [1e-3, 1.1e-3, 1.2e-3], color=style.shades(3)[-1])
                axes.set(yscale="log", ylabel="relative gap of the loss to the optimum", xlabel="a very long word " * 2)
                marks.named(axes, [f"block{number}" for number in range(3)])
                if row == 0:
                    sheet.tag(axes, f"backbone under a fixed head, case {column}")
        sheet.name_ends(sheet[0, 0], [(1.2e-3, name, {"color": style.BLUE}) for name in "ab"])
        sheet.legend([marks.line(f"number {number} of many", color) for number, color in enumerate(style.shades(9))])
    return sheet.figure


@pytest.mark.parametrize(("medium", "alike"), [*((name, True) for name in style.MEDIA), ("column", False)])
def test_whatever_is_written_stays_within_and_apart(medium, alike):
    figure = sheet_of(medium, alike=alike, same_x=alike)
    assert_readable(figure, medium)
    assert bool(figure.get_suptitle()) == (medium == "screen")


@pytest.mark.parametrize("medium", style.MEDIA)
def test_four_weights_in_the_panels_of_a_run_are_named_level(medium):
    with style.drawn_for(medium), Sheet(1, 4, alike=False) as sheet:
        for axes in sheet.row(0):
            marks.dots(axes, range(4), [0.6, 0.3, 0.27, 0.16], style.BLUE)
            marks.named(axes, [style.weight_name(number) for number in range(1, 5)])
            axes.set(yscale="log", ylim=(0.04, 0.7), xlabel="layer", ylabel="DNC3")
    assert {label.get_rotation() for axes in sheet.figure.axes for label in axes.get_xticklabels()} == {0}


def one_tick(axes) -> None:
    axes.set(yscale="log", ylim=(1.1, 1.9))
    axes.yaxis.set(major_locator=FixedLocator([1.5, 9.0]), major_formatter=FixedFormatter(["1.5", "9"]))
    axes.yaxis.set_minor_locator(NullLocator())


def test_what_is_unreadable_is_found():
    with style.drawn_for("column"), Sheet(1, 1) as sheet:
        sheet[0, 0].plot([1, 2], color="#fde725")
        sheet[0, 0].set_ylabel("y")
    figure = sheet.figure
    assert len(pale(figure)) == 1
    faults = {
        "a y axis without": lambda axes: axes.set_ylabel(""),
        "below 7 points": lambda axes: axes.text(0.5, 1.5, "tiny", fontsize=5),
        "beyond the edge": lambda axes: axes.set_xlabel("long " * 40),
        "text on text": lambda axes: [axes.text(0.5, 1.5, "over") for _ in range(2)],
        "bars of no length": lambda axes: axes.vlines([0.5], [1], [1]),
        "a log axis with": one_tick,
    }
    for said, spoil in faults.items():
        with style.drawn_for("column"), Sheet(1, 1) as sheet:
            sheet[0, 0].plot([1, 2], color=style.BLUE)
            sheet[0, 0].set_ylabel("y")
        assert_readable(sheet.figure)
        spoil(sheet[0, 0])
        with pytest.raises(AssertionError, match=said):
            assert_readable(sheet.figure)


def test_fonts_are_truetype_and_stand_in_the_file(tmp_path):
    pdf = as_pdf(sheet_of("neurips", 2), tmp_path)
    assert fonts_of(pdf) == {"Type0", "CIDFontType2"} and b"/FontFile2" in pdf
    assert b"/MediaBox" in pdf and as_pdf(sheet_of("neurips", 2), tmp_path) == pdf


def test_numbers_stand_in_cells_that_have_room_for_them():
    for wide, room in ((2, True), (40, False)):
        with style.drawn_for("column"), Sheet(1, 1) as sheet:
            marks.matrix(sheet, sheet[0, 0], np.eye(wide))
            sheet[0, 0].set_ylabel("class")
        FigureCanvasAgg(sheet.figure).draw()
        cells = [text for text, _ in shown_texts(sheet.figure) if text.get_gid() == "cell"]
        assert bool(cells) == room


def test_text_is_broken_between_words_and_never_within_mathematics():
    text = r"the norm $\| W_l H_l \|$ costs \$5 and more words follow here"
    lines = wrapped(text, 80, 8).split("\n")
    assert " ".join(lines) == text and len(lines) > 2
    assert all(text_width(line, 8) <= 80 for line in lines)
    assert wrapped("", 10, 8) == "" and wrapped("onelongword", 5, 8) == "onelongword"


def test_labels_that_would_touch_are_left_out_and_the_last_one_stays():
    assert apart([0, 10, 20, 30, 40], [15] * 5, list("abcde")) == ["a", "", "c", "", "e"]
    assert apart([0, 1, 20, 40], [10] * 4, list("abcd")) == ["", "b", "c", "d"]
    assert apart([0, 100], [10, 10], ["a", "b"]) == ["a", "b"]

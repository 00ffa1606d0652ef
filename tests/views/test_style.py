"""Colours stand out from white and keep their order in grey; media nest; names are mathematics."""

import pytest
from matplotlib.colors import to_rgba

from pipeline.views import style


def contrasts(colors) -> list[float]:
    return [style.contrast_on_white(to_rgba(color)) for color in colors]


def test_contrast_is_that_of_wcag():
    assert contrasts(["#ffffff", "#000000", "#767676"]) == pytest.approx([1, 21, 4.54], abs=5e-3)
    assert style.contrast_on_white((0, 0, 0, 0)) == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 12, 30])
def test_every_shade_stands_out_from_white_and_the_next_is_brighter(count):
    for shades in (style.shades(count), style.greys(count)):
        found = contrasts(shades)
        assert len(set(shades)) == count and min(found) >= style.CONTRAST
        assert found == sorted(found, reverse=True)


def test_the_palette_stands_out_from_white_and_in_grey_no_two_neighbours_are_alike():
    named = [*style.PALETTE, style.GREY, style.TRAIN, style.TEST, style.OPTIMUM["color"], style.THRESHOLD["color"]]
    assert min(contrasts(named)) >= style.CONTRAST and len(set(style.PALETTE)) == len(style.PALETTE)
    assert style.TRAIN != style.TEST


def test_a_medium_holds_within_and_no_longer():
    assert style.medium() is style.SCREEN
    with style.drawn_for("column"):
        assert style.medium().width == 3.25
        with style.drawn_for("neurips"):
            assert style.medium().width == 5.5
        assert style.medium() is style.COLUMN
    assert style.medium() is style.SCREEN


def test_print_has_no_titles_no_small_text_and_fonts_that_can_be_edited():
    for name in style.PAPER:
        medium = style.MEDIA[name]
        assert not medium.titled and medium.text >= style.SMALLEST and medium.rc["pdf.fonttype"] == 42
        assert {size for key, size in medium.rc.items() if key.endswith(("size", "fontsize"))} >= {medium.text}


def test_places_and_weights_have_mathematical_names():
    assert style.place_name(2) == "$H_{2}$" and style.place_name(2, "post") == r"$\sigma(H_{2})$"
    assert style.weight_name(3) == "$W_{3}$"

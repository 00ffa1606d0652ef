"""Colours are told from the ground they are drawn on, and from their neighbours, on light and on dark pages."""

import re
from pathlib import Path

import pytest

import pipeline.views.html
from pipeline.views.html.palette import DARK_GROUND, LIGHT_GROUND, TEST, TRAIN, oklch, ramp


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Contrast ratio of WCAG 2."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_lines_contrast_with_the_ground_as_wcag_asks_of_graphics(count):
    for light, dark in [*ramp(count), TRAIN, TEST]:
        assert contrast(light, LIGHT_GROUND) >= 3 and contrast(dark, DARK_GROUND) >= 3


def test_layers_become_brighter_with_depth():
    for index in (0, 1):
        shades = [luminance(pair[index]) for pair in ramp(6)]
        assert shades == sorted(shades)


def test_the_grounds_are_those_of_the_style_sheet():
    css = (Path(pipeline.views.html.__file__).parent / "page.css").read_text()
    assert re.findall(r"--panel: (#\w+)", css) == [LIGHT_GROUND, DARK_GROUND]


def test_oklch_is_that_of_its_author():
    """White, black and sRGB red, whose coordinates Ottosson gives."""
    assert (oklch(1, 0, 0), oklch(0, 0, 0), oklch(0.6280, 0.2577, 29.23)) == ("#ffffff", "#000000", "#ff0000")

"""Colours that are told apart and read on a light and on a dark page."""

import math

LIGHT_GROUND, DARK_GROUND = "#ffffff", "#1b1e26"
"""What plots are drawn on; the same values stand in ``page.css``."""

Pair = tuple[str, str]
"""A colour for the light page and one for the dark page, as #rrggbb."""

TRAIN: Pair = ("#b3372f", "#ff938a")
TEST: Pair = ("#1d63b8", "#7db7ff")


def ramp(count: int) -> list[Pair]:
    """``count`` colours from violet over blue and green to amber, brighter with every step.

    Lightness changes along with the hue, so that neighbours differ for the colour-blind too.
    """
    pairs = []
    for index in range(count):
        share = index / max(count - 1, 1)
        hue = 305 - 235 * share
        pairs.append((oklch(0.40 + 0.20 * share, 0.13, hue), oklch(0.68 + 0.20 * share, 0.12, hue)))
    return pairs


def oklch(lightness: float, chroma: float, hue: float) -> str:
    """A colour of OKLCH (Ottosson 2020; hue in degrees) as #rrggbb, clipped to sRGB."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    cone_l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    cone_m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    cone_s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * cone_l - 3.3077115913 * cone_m + 0.2309699292 * cone_s,
        -1.2684380046 * cone_l + 2.6097574011 * cone_m - 0.3413193965 * cone_s,
        -0.0041960863 * cone_l - 0.7034186147 * cone_m + 1.7076147010 * cone_s,
    )
    return "#" + "".join(f"{round(255 * _encoded(min(max(value, 0.0), 1.0))):02x}" for value in linear)


def _encoded(value: float) -> float:
    """sRGB's transfer function."""
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055

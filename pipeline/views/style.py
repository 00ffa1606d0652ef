"""How every figure looks: widths, sizes of text, colours and names are decided here and nowhere else.

A figure is made for a medium: the screen, or a column of a journal. Who draws asks `medium`; who wants figures for
another medium draws within `drawn_for`. matplotlib is not loaded by this module.

Sources: NeurIPS sets text 5.5 inches wide (its LaTeX style file); 3.25 inches is a column of a page in two, as of ICML
(both recalled). Contrast is WCAG 2.1's (relative luminance). The palette is Okabe and Ito's ("Color Universal Design"),
without the colours that stand out too little from white; its purple is darkened for the same reason.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

SMALLEST = 7.0
"""Points: no text is smaller at the width that a figure is made for."""
CONTRAST = 3.0
"""Least contrast of lines, markers and text on white."""


@dataclass(frozen=True)
class Medium:
    """Where a figure is to stand.

    Attributes:
        name: of the medium, and in the names of files.
        width: inches of the whole figure; None: as wide as its panels.
        text: points of all text.
        panel: inches, width and height, of a panel; of a figure of given width only the height counts.
        most: panels side by side, at most; one more where they share their y axis.
        line: points, the width of lines; markers go by it, too.
        titled: whether the figure says what it shows; in print that is the caption's task.
    """

    name: str
    width: float | None
    text: float
    panel: tuple[float, float]
    most: int
    line: float
    titled: bool = False

    @property
    def rc(self) -> dict[str, Any]:
        """matplotlib's settings."""
        sizes = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize")
        sizes += ("legend.fontsize", "legend.title_fontsize", "figure.titlesize", "figure.labelsize")
        thin = 0.5 * self.line
        return {
            **dict.fromkeys(sizes, self.text),
            "font.family": "DejaVu Sans",  # ships with matplotlib: everywhere the same
            "mathtext.fontset": "dejavusans",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.linewidth": thin,
            "axes.labelpad": 2.5,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.4 * self.line,
            "lines.linewidth": self.line,
            "lines.markersize": 3.2 * self.line,
            "legend.frameon": False,
            "legend.handlelength": 1.6,
            "legend.columnspacing": 1.2,
            "legend.borderaxespad": 0.2,
            **{f"{axis}tick.{which}.width": thin for axis in "xy" for which in ("major", "minor")},
            "text.usetex": False,
            "pdf.fonttype": 42,  # TrueType, embedded: text that publishers can check and edit
            "ps.fonttype": 42,
            "savefig.bbox": None,  # exactly as wide as asked for
        }


SCREEN = Medium("screen", None, 8.0, (2.6, 2.0), 6, 1.3, titled=True)
NEURIPS = Medium("neurips", 5.5, SMALLEST, (1.8, 1.25), 4, 1.0)
COLUMN = Medium("column", 3.25, SMALLEST, (1.5, 1.2), 2, 1.0)
SLIDE = Medium("slide", 10.0, 14.0, (2.5, 2.3), 4, 2.0)
"""Ten inches wide, as a slide of 16:9 is in LaTeX's and PowerPoint's older measure (ours)."""
MEDIA = {medium.name: medium for medium in (SCREEN, NEURIPS, COLUMN, SLIDE)}
PAPER = tuple(name for name in MEDIA if name != SCREEN.name)
"""What ``--paper`` takes; the first is what it means alone."""

_medium: ContextVar[Medium] = ContextVar("medium", default=SCREEN)


def medium() -> Medium:
    """What figures are made for at the moment."""
    return _medium.get()


@contextmanager
def drawn_for(name: str) -> Iterator[Medium]:
    """Within, figures are made for the medium of this name."""
    token = _medium.set(MEDIA[name])
    try:
        yield MEDIA[name]
    finally:
        _medium.reset(token)


BLUE, RED, GREEN, PURPLE, BROWN, BLACK = "#0072B2", "#D55E00", "#00805E", "#A8447D", "#7A5C00", "#000000"
GREY = "#6E6E6E"
PALETTE = (BLUE, RED, GREEN, PURPLE, BROWN, BLACK)
"""Of categories, in this order."""
TRAIN, TEST = RED, BLUE
LINES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.3)), (0, (4, 1.5, 1, 1.5)))
"""Solid, dashed, dotted, dash-dotted."""
MARKERS = ("o", "s", "^", "D", "v", "P")
OPTIMUM: dict[str, Any] = {"color": BLACK, "linestyle": LINES[2]}
"""What theory says."""
THRESHOLD: dict[str, Any] = {"color": GREY, "linestyle": LINES[3]}
BAND: dict[str, Any] = {"alpha": 0.18, "linewidth": 0}
"""Between the smallest and the largest seed."""
DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"
"""Colour maps of cells, which carry their numbers."""
# Of "plasma" up to the place where its contrast on white falls below 3; kept as numbers, so that HTML can use them too.
_RAMP = ("#0d0887", "#4c02a1", "#7e03a8", "#a92395", "#cc4778", "#e0605f")


def shades(count: int) -> list[str]:
    """Colours of a scale, from dark to bright; all of them stand out from white, and in a grey print their order stays.

    The ends are dark blue and a light red; those between are interpolated.
    """
    if count == 1:
        return [_RAMP[0]]
    return [_between(place / (count - 1) * (len(_RAMP) - 1)) for place in range(count)]


def greys(count: int) -> list[str]:
    """The same without colour, for what stands beside a scale in colours."""
    levels = (round(110 * place / max(count - 1, 1)) for place in range(count))
    return ["#" + 3 * f"{level:02x}" for level in levels]


def _between(place: float) -> str:
    low = min(int(place), len(_RAMP) - 2)
    first, second = _channels(_RAMP[low]), _channels(_RAMP[low + 1])
    share = place - low
    return "#" + "".join(f"{round(255 * (a + share * (b - a))):02x}" for a, b in zip(first, second, strict=True))


def _channels(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def contrast_on_white(color: Sequence[float]) -> float:
    """WCAG's contrast ratio of a colour (red, green, blue, and opacity if it has one; 0 to 1) on white."""
    opacity = color[3] if len(color) > 3 else 1.0
    linear = []
    for channel in color[:3]:
        shown = opacity * channel + 1 - opacity
        linear.append(shown / 12.92 if shown <= 0.04045 else ((shown + 0.055) / 1.055) ** 2.4)
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 1.05 / (luminance + 0.05)


def place_name(layer: object, tap: str = "pre") -> str:
    """What enters a weight: H_l before the activation, sigma(H_l) after it."""
    return rf"$\sigma(H_{{{layer}}})$" if tap == "post" else f"$H_{{{layer}}}$"


def weight_name(layer: object) -> str:
    """W_l."""
    return f"$W_{{{layer}}}$"


AFTER, BEFORE = r"$\sigma(H_l)$: after the activation", "$H_l$: before it"
STEPS = "gradient step"
GAP = r"relative gap to the optimum"
EXPLAINED = {AFTER: LINES[0], BEFORE: LINES[1]}
"""Lines of the two taps, by what a legend says of them."""

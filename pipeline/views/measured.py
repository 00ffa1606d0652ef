"""How long text is once it is typeset, and where to break it."""

import re
from functools import cache


@cache
def text_width(text: str, size: float) -> float:
    """Points that one line of text takes, with its mathematics, in the font of all figures."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.cbook import is_math_text
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family="DejaVu Sans", size=size)
    return RendererAgg(1, 1, 72).get_text_width_height_descent(text, font, is_math_text(text))[0]


def wrapped(text: str, points: float, size: float) -> str:
    """The text in lines no longer than so many points; a word, or mathematics, that is longer stays whole."""
    lines: list[str] = []
    for word in re.findall(r"(?:\\\$|\$[^$]*\$|[^\s$]|\$)+", text):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) > points:
            lines.append(word)
        else:
            lines[-1:] = [longer]
    return "\n".join(lines)

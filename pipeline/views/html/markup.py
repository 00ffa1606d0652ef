"""Fragments of HTML; whatever is not `Html` already is text and gets escaped."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class Html(str):
    """Text that is markup."""

    __slots__ = ()


def text(value: object) -> Html:
    """``value`` as markup: itself if it is, else escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element; ``class_`` is class, underscores in attributes are hyphens, True is an attribute without a value."""
    shown = ""
    for key, value in attributes.items():
        if value is not None and value is not False:
            key = key.rstrip("_").replace("_", "-")
            shown += f" {key}" if value is True else f' {key}="{html.escape(str(value))}"'
    return Html(f"<{name}{shown}>{''.join(map(text, content))}</{name}>")


def table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], class_: str | None = None) -> Html:
    """A table that scrolls within itself; the first cell of every row is its header."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)) for first, *rest in rows)
    inner = tag("table", tag("caption", tag("span", caption)), tag("thead", top), tag("tbody", *body), class_=class_)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(caption: str, pairs: Mapping[str, object]) -> Html:
    """Names and values as a table of two columns."""
    return table(caption, ("name", "value"), pairs.items(), class_="facts")


def swatch(colors: tuple[str, str]) -> Html:
    """A stroke of a colour: the first of the pair on a light page, the second on a dark one."""
    return tag("span", class_="swatch", style=f"--light:{colors[0]};--dark:{colors[1]}", aria_hidden="true")


def data(value: Any, class_: str) -> Html:
    """``value`` as JSON for the page's script; no text in it can end the element.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    shown = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        shown = shown.replace(character, f"\\u{ord(character):04x}")
    return tag("script", Html(shown), type="application/json", class_=class_)

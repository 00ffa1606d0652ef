"""The legend of a panel of charts: checkboxes that hide a layer, a tap, a split or a run in all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.views.html.markup import Html, swatch, tag
from pipeline.views.html.palette import Pair


@dataclass(frozen=True)
class Entry:
    """One checkbox: it shows the traces whose ``meta.keys`` call themselves ``value``."""

    value: str
    name: str
    colors: Pair | None = None
    dash: str | None = None
    checked: bool = True


def legend(title: str, key: str, entries: Sequence[Entry]) -> Html:
    """Checkboxes for one kind of key (layer, tap, split, run); nothing where there is no choice."""
    if len(entries) < 2:
        return Html("")
    boxes = [
        tag(
            "label",
            tag("input", type="checkbox", checked=entry.checked, data_key=key, data_value=entry.value),
            _sign(entry),
            entry.name,
        )
        for entry in entries
    ]
    switch = tag("button", "all / none", type="button", data_all=key) if len(entries) > 3 else ""
    return tag("fieldset", tag("legend", title), *boxes, switch, class_="legend")


def _sign(entry: Entry) -> Html:
    if entry.colors is not None:
        return swatch(entry.colors)
    return tag("span", class_=f"stroke {entry.dash}", aria_hidden="true") if entry.dash else Html("")

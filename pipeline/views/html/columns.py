"""The headlines of several runs as the columns of one table, whatever each of them is known by."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.storage.summary import Headline
from pipeline.views.html.formatting import number
from pipeline.views.html.runs import LocalRun

MOST_NUMBERS = 6
"""Columns of numbers; what some runs have beyond them is told in words."""


@dataclass(frozen=True)
class Columns:
    """Columns of numbers (name -> what stands above it), and one of words.

    A run puts the numbers by which it is compared before the first words of its headline. These numbers have columns;
    runs that have them elsewhere in their headline fill them too.
    """

    numbers: Mapping[str, str]
    words: str
    caption: str | None

    @classmethod
    def of(cls, runs: Sequence[LocalRun]) -> "Columns":
        """What the table of ``runs`` needs."""
        found: Counter[str] = Counter()
        labels: dict[str, str] = {}
        for run in runs:
            for entry in _compared(run.headline):
                found[entry.name] += 1
                labels.setdefault(entry.name, entry.label)
        shown = {name for name, _ in found.most_common(MOST_NUMBERS)}
        others = any(run.completed and not run.summary.has_head for run in runs)
        layer = "the last layer (of the head where there is one)" if others else "the head's last layer"
        return cls(
            {name: label for name, label in labels.items() if name in shown},
            "result" if others else "collapse",
            f"gap: relative, of the loss to the closed-form optimum; metrics: of {layer}; medians." if labels else None,
        )

    def cells(self, run: LocalRun) -> list[str]:
        """The numbers of a run; a dash where it has none."""
        known = {entry.name: entry.value for entry in run.headline}
        return [_text(known.get(name)) for name in self.numbers]

    def rest(self, run: LocalRun) -> str:
        """What a run is known by beside the numbers that have columns; why there is nothing if it did not complete."""
        if not run.completed:
            return run.error or ""
        words = [str(entry.value) for entry in run.headline if isinstance(entry.value, str)][:1]
        left = _compared(run.headline) if words else run.headline
        told = [entry for entry in left if entry.name not in self.numbers and entry.value is not None]
        return ", ".join([*words, *(f"{entry.label} {_text(entry.value)}" for entry in told)]) or run.summary.title


def _compared(headline: Sequence[Headline]) -> list[Headline]:
    """The numbers before the first words."""
    first = next((i for i, entry in enumerate(headline) if isinstance(entry.value, str)), len(headline))
    return list(headline[:first])


def _text(value: float | str | bool | None) -> str:
    return value if isinstance(value, str) else number(value)

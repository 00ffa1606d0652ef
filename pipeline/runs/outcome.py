"""What a protocol returns: the results of the run, one section each.

A later section takes precedence: its part of the summary, its title and its headline entries replace those of the same
name before it. So a protocol lists its sections as it makes them, and the last one is what the run was for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Console

    from pipeline.runs.run import Run


class Headline(NamedTuple):
    """A number (or a word) that tables of runs show: ``name`` is its key, ``label`` the column's title."""

    name: str
    label: str
    value: float | str | None


class Section:
    """One result of a run. Subclasses say what there is of it; all of it is asked for on the first rank only.

    ``name``: in the summary's list of sections, unique in an outcome.
    """

    name: str

    def summary(self, run: "Run") -> dict[str, Any]:
        """Keys of ``summary.json``: plain values and tensors; what is not finite is written as null."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Entries of ``tensors.safetensors``, by their full names."""
        return {}

    def title(self, summary: Mapping[str, Any]) -> str | None:
        """The result in one sentence, without a full stop; None leaves the word to another section."""
        return None

    def headline(self, summary: Mapping[str, Any]) -> list[Headline]:
        """The numbers to show first, in this order."""
        return []

    def show(self, summary: Mapping[str, Any], console: "Console") -> None:
        """Print tables at the end of the run."""

    def lines(self, summary: Mapping[str, Any]) -> Iterator[str]:
        """Sentences to print below all tables."""
        return iter(())

    def figure(self, record: "pd.DataFrame", summary: Mapping[str, Any]) -> "Figure | None":
        """A figure of its own, kept as ``figures/<name>.png``."""
        return None


@dataclass(frozen=True)
class Outcome:
    """The sections of a run's result.

    Raises:
        ValueError: two sections have one name.
    """

    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.sections):
            raise ValueError(f"sections {', '.join(self.names)}: two have one name; allowed: different names")

    @property
    def names(self) -> list[str]:
        """Of the sections, in order."""
        return [section.name for section in self.sections]

    def section(self, name: str) -> Any:
        """The section of this name.

        Raises:
            KeyError: there is none.
        """
        return dict(zip(self.names, self.sections, strict=True))[name]

    def tensors(self) -> dict[str, Tensor]:
        """Of all sections, by their names in ``tensors.safetensors``.

        Raises:
            ValueError: two sections use one name.
        """
        found: dict[str, Tensor] = {}
        for section in self.sections:
            own = section.tensors()
            if twice := found.keys() & own.keys():
                raise ValueError(f"section {section.name}: the tensor {min(twice)} is another section's, too")
            found |= own
        return found

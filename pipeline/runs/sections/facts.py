"""A result that is a few facts under a name of its own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.runs.outcome import Headline, Section


@dataclass(frozen=True)
class FactsSection(Section):
    """Facts that the summary holds under ``name``.

    Args:
        facts: name -> number, text, list, mapping or small tensor.
        labels: the facts that tables of runs show, and the title of each one's column.
        sentence: the result in one sentence, without a full stop; it becomes the run's title.
        arrays: what goes into ``tensors.safetensors``, as ``<name>/<array's name>``.
    """

    name: str
    facts: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    sentence: str | None = None
    arrays: Mapping[str, Tensor] = field(default_factory=dict)

    def summary(self, run: Any) -> dict[str, Any]:
        return {self.name: dict(self.facts)}

    def tensors(self) -> dict[str, Tensor]:
        return {f"{self.name}/{array}": tensor for array, tensor in self.arrays.items()}

    def title(self, summary: Mapping[str, Any]) -> str | None:
        return self.sentence

    def headline(self, summary: Mapping[str, Any]) -> list[Headline]:
        return [Headline(name, label, summary[self.name][name]) for name, label in self.labels.items()]

    def lines(self, summary: Mapping[str, Any]) -> Iterator[str]:
        if self.sentence:
            yield f"{self.sentence}."
        facts = summary[self.name].items()
        shown = [f"{name} {value:.6g}" for name, value in facts if isinstance(value, int | float)]
        shown += [f"{name} {value}" for name, value in facts if isinstance(value, str)]
        if shown:
            yield f"{self.name}: {', '.join(shown)}."

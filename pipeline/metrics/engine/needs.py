"""What metrics need, and families that are named and lack it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.metrics import registry
from pipeline.metrics.registry import Metric


def check_of_runs(names: Sequence[str]) -> None:
    """Refuse families, named, that only runs have: raise ValueError."""
    known = registry.families()
    for name in (name for name in names if name in known):
        own = [registry.metrics()[metric] for metric in known[name].metrics]
        if all(set(registry.OF_RUNS) & set(metric.takes) for metric in own):
            raise ValueError(
                f"the family {name!r} needs the network as a run has it; allowed: measure.families of a run, or "
                "families without it."
            )


def check_inputs(names: Sequence[str], chosen: Sequence[Metric], kept: Sequence[Metric], lacking: set[str]) -> None:
    """Refuse families, named, of which nothing is kept because what they need is lacking: raise ValueError."""
    known = registry.families()
    for name in (name for name in names if name not in (registry.ALL, registry.CORE)):
        own = [metric for metric in chosen if metric.name in known[name].metrics]
        if not any(metric in kept for metric in own):
            needed = sorted({need for metric in own for need in needs_of(metric) & lacking})
            raise ValueError(f"the family {name!r} needs {', '.join(needed)}, which is not given.")


def needs_of(metric: Metric) -> set[str]:
    """What it takes, and what the sums over rows that it takes need."""
    known = registry.row_sums()
    needs = {need for name in metric.takes if name in known for need in known[name].needs}
    of_foreign = {"foreign"} if any(name.startswith(registry.FOREIGN) for name in metric.takes) else set()
    return {*metric.takes, *needs, *of_foreign}

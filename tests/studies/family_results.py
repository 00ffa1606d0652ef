"""Results of the DUFM family made by hand: runs that end at references of theory, or away from them."""

from pathlib import Path

import pandas as pd
import torch

from pipeline.config import Config
from pipeline.storage.record import COMPLETED, Row, write_summary
from pipeline.storage.tensors import write_tensors
from pipeline.studies.engine.results import Point, Result
from pipeline.theory import Problem, diagnose, references
from pipeline.theory._problem import DufmFactors


def factors_at(problem: Problem, name: str | None, widths: list[int]) -> DufmFactors:
    """The point of the reference of this name, or a random point."""
    if name is not None:
        (state,) = [state for state in references(problem) if state.name == name]
        return state.construct(widths, torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=random, dtype=torch.float64)  # noqa: E731
    labels = torch.arange(len(problem.class_sizes)).repeat_interleave(torch.tensor(problem.class_sizes))
    shapes = zip([*widths[1:], problem.num_classes], widths, strict=True)
    weights = tuple(draw(*shape) for shape in shapes) if problem.depth else ()
    return DufmFactors(draw(problem.num_samples, widths[0]), labels, weights)


def result_at(
    folder: Path,
    point: str,
    problem: Problem,
    name: str | None,
    widths: list[int],
    loss: float | None = None,
    rows: list[Row] = (),
    seeds: int = 2,
) -> Result:
    """A run all of whose seeds end at this reference (``None``: at a random point), with its loss or another."""
    place = folder / point
    place.mkdir(parents=True)
    at, known = factors_at(problem, name, widths), references(problem)
    if loss is None:
        loss = next((state.value for state in known if state.name == name), 9.0)
    said = diagnose(problem, loss) if known else None
    end = None if said is None else {"name": said.name, "gap": 0.0}
    named = {"activation": problem.activation, "loss": problem.loss, "constraint": problem.constraint}
    sizes = {"num_classes": len(problem.class_sizes), "samples_per_class": list(problem.class_sizes)}
    decays = {"weight_decay": list(problem.weight_decays), "feature_decay": problem.feature_decay}
    summary = {
        "status": COMPLETED,
        "seeds": list(range(seeds)),
        "problem": {**named, **sizes, **decays, "depth": problem.depth, "widths": widths},
        "loss": {"total": [loss] * seeds},
        "references": [{"name": state.name, "value": state.value, "kind": state.kind} for state in known],
        "sits_at": [end] * seeds,
        "layers": [],
    }
    write_summary(place, summary)
    pd.DataFrame(rows, columns=Row._fields).to_csv(place / "record.csv", index=False)
    tensors = {"labels": at.labels, "features/1": at.features.expand(seeds, -1, -1)}
    tensors |= {f"weights/{layer}": weight.expand(seeds, -1, -1) for layer, weight in enumerate(at.weights, start=1)}
    if at.bias is not None:
        tensors["bias"] = at.bias.expand(seeds, -1)
    write_tensors(place, tensors, max_mb=10)
    return Result(Point(point, ()), Config(), place)


def descent_rows(metric: str, values: list[float], layer: str = "", tap: str = "", seeds: int = 2) -> list[Row]:
    """Rows of a metric at steps 0, 1, 10, 100, ..."""
    steps = [0, *(10**power for power in range(len(values) - 1))]
    return [
        Row("head", step, seed, layer, tap, metric, value)
        for step, value in zip(steps, values, strict=True)
        for seed in range(seeds)
    ]

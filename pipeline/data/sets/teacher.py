"""Gaussian vectors labelled by a random network with a bottleneck (after arXiv 2405.17573)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.data import DataError, Request, Source, data_set
from pipeline.data.vector_rows import DrawnSettings, as_rows, drawn_classes, normal_rows, require_room
from pipeline.runtime.randomness import generator
from pipeline.runtime.settings import knob


@dataclass(frozen=True)
class Settings(DrawnSettings):
    """Of the teacher."""

    samples: int = knob(1000, "training rows of all classes together", ge=1)
    rank: int = knob(3, "k*, width of the teacher's bottleneck", ge=1)
    teacher_width: int = knob(100, "hidden units of each of the teacher's two networks", ge=1)


def check(request: Request) -> None:
    """Raise DataError where the bottleneck is wider than what enters it."""
    settings = request.settings
    if settings.rank > settings.dim:
        raise DataError(
            f"data.rank={settings.rank} is more than data.dim={settings.dim}; allowed: an integer from 1 to "
            f"{settings.dim}."
        )
    require_room(settings.samples + settings.test, settings)


@data_set(classes=drawn_classes, settings=Settings, check=check, kind="vectors")
def teacher(request: Request) -> Source:
    """x ~ N(0, I_d); the teacher is two random ReLU networks, d -> k* -> K; the label is its largest output.

    Outputs are centred and divided by their std over the training rows first, so that no class takes all. The source
    fits the outputs themselves (`teacher_outputs`); to take the largest one for a class is ours, and so is the hidden
    width, which the source does not say.
    """
    settings, rows = request.settings, {}
    for split, count in (("train", settings.samples), ("test", settings.test)):
        rows[split] = normal_rows(count, settings.dim, generator(request.seed, f"data/teacher/{split}"))
    outputs = {split: teacher_outputs(request, part) for split, part in rows.items()}
    mean, std = outputs["train"].mean(dim=0), outputs["train"].std(dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    return Source.of_tensors(
        *((as_rows(rows[split]), ((outputs[split] - mean) / std).argmax(dim=1)) for split in ("train", "test"))
    )


def teacher_outputs(request: Request, rows: Tensor) -> Tensor:
    """What the teacher of this seed gives for rows ``(N, d)`` float64: ``(N, K)`` float64.

    Each network is W_2 relu(W_1 x) with entries N(0, 2 / fan_in) and N(0, 1 / fan_in).
    """
    settings, randomness = request.settings, generator(request.seed, "data/teacher/weights")
    widths = (settings.dim, settings.rank, settings.num_classes)
    for before, after in pairwise(widths):
        first = normal_rows(settings.teacher_width, before, randomness) * (2 / before) ** 0.5
        second = normal_rows(after, settings.teacher_width, randomness) / settings.teacher_width**0.5
        rows = torch.relu(rows @ first.T) @ second.T
    return rows

"""Cones: Gaussian vectors, each of the class whose axis it points along most (after arXiv 2309.04644)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.data import Request, Source, data_set
from pipeline.data.vector_rows import DrawnSettings, as_rows, drawn_classes, normal_rows, require_room
from pipeline.runtime.randomness import generator
from pipeline.runtime.settings import knob


@dataclass(frozen=True)
class Settings(DrawnSettings):
    """Of the cones."""

    samples: int = knob(1000, "training rows of all classes together", ge=1)


def check(request: Request) -> None:
    """Raise an error if the rows do not fit into memory."""
    require_room(request.settings.samples + request.settings.test, request.settings)


@data_set(classes=drawn_classes, settings=Settings, check=check, kind="vectors")
def cones(request: Request) -> Source:
    """x ~ N(0, I_d) with the label argmax_c <q_c, x>, where q_0 .. q_{K-1} are random unit vectors.

    Classes are about equally, not exactly, large. The axes come from the seed, too.
    """
    axes = class_axes(request)
    train, test = (_draw(request, axes, split) for split in ("train", "test"))
    return Source.of_tensors(train, test)


def class_axes(request: Request) -> Tensor:
    """q_0 .. q_{K-1}, ``(K, d)`` float64, of length 1."""
    settings = request.settings
    drawn = normal_rows(settings.num_classes, settings.dim, generator(request.seed, "data/cones/axes"))
    return normalize(drawn, dim=1)


def _draw(request: Request, axes: Tensor, split: str) -> tuple[Tensor, Tensor]:
    count = request.settings.samples if split == "train" else request.settings.test
    rows = normal_rows(count, request.settings.dim, generator(request.seed, f"data/cones/{split}"))
    return as_rows(rows), torch.argmax(rows @ axes.T, dim=1)

"""A mixture of Gaussian clouds, one for each class: vectors drawn with the seed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data import Request, Source, data_set
from pipeline.data.vector_rows import DrawnSettings, as_rows, drawn_classes, normal_rows, refuse_narrow, require_room
from pipeline.runtime.randomness import generator
from pipeline.runtime.settings import knob

SAMPLES = 100
"""Training rows of a class where nothing is asked for."""


@dataclass(frozen=True)
class Settings(DrawnSettings):
    """Of the mixture; `samples_per_class` says how many training rows of each class are drawn."""

    means: str = knob(
        "orthogonal",
        "class means: one axis each, two ends of an axis for each pair, or steps along the diagonal that all share",
        choices=("orthogonal", "antipodal", "shared_axis"),
    )
    snr: float = knob(4.0, "how far means are out, in units of data.std; along shared_axis in every coordinate", ge=0)
    std: float = knob(1.0, "of the noise in every coordinate", gt=0)


def check(request: Request) -> None:
    """Raise DataError where there are not enough axes for the means."""
    settings = request.settings
    needed = {"orthogonal": settings.num_classes, "antipodal": -(-settings.num_classes // 2), "shared_axis": 1}
    refuse_narrow(
        request, needed[settings.means], f"for data.num_classes={settings.num_classes} and data.means={settings.means}"
    )
    require_room(settings.num_classes * ((request.samples_per_class or SAMPLES) + settings.test), settings)


@data_set(classes=drawn_classes, settings=Settings, check=check, kind="vectors")
def mixture(request: Request) -> Source:
    """Rows mu_c + std * N(0, I) of each class c (100 for training unless `samples_per_class` says otherwise).

    The means are ours, after the settings of the papers that use them: s = snr * std is what 2409.01832's
    reconstruction calls the signal (means s e_c), and two classes with shared_axis, snr 4 and std 0.5 are the data of
    2406.02105 (means -2 and +2 in every coordinate).
    """
    settings = request.settings
    counts = {"train": request.samples_per_class or SAMPLES, "test": settings.test}
    return Source.of_tensors(*(_draw(request, split, count) for split, count in counts.items()))


def class_means(settings: Settings) -> Tensor:
    """mu_0 .. mu_{K-1}, ``(K, d)`` float64.

    orthogonal: mu_c = snr std e_c. antipodal: mu_2j = snr std e_j and mu_{2j+1} = -mu_2j. shared_axis: mu_c =
    snr std t_c (1, .., 1), t_c in equal steps from -1 to 1.
    """
    classes, dim = settings.num_classes, settings.dim
    if settings.means == "shared_axis":
        directions = torch.linspace(-1, 1, classes, dtype=torch.float64)[:, None].expand(classes, dim)
    elif settings.means == "antipodal":
        axes = torch.eye(-(-classes // 2), dim, dtype=torch.float64)
        directions = torch.stack([axes, -axes], dim=1).flatten(0, 1)[:classes]
    else:
        directions = torch.eye(classes, dim, dtype=torch.float64)
    return settings.snr * settings.std * directions


def _draw(request: Request, split: str, count: int) -> tuple[Tensor, Tensor]:
    settings = request.settings
    clouds = [
        mean + settings.std * normal_rows(count, settings.dim, generator(request.seed, f"data/mixture/{split}/{label}"))
        for label, mean in enumerate(class_means(settings))
    ]
    return as_rows(torch.cat(clouds)), torch.arange(settings.num_classes).repeat_interleave(count)

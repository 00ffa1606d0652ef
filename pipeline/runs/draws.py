"""Data sets of several seeds: what a protocol without a network computes its numbers on."""

from collections.abc import Iterator

from torch import Tensor

from pipeline.config import Config
from pipeline.data import ImageData, load_images
from pipeline.data.images import Split
from pipeline.runs.inputs import Inputs
from pipeline.runs.run import Run
from pipeline.runtime.errors import ConfigError


def draws(run: Run) -> Iterator[tuple[int, ImageData]]:
    """``protocol.repeats`` data sets, each with its seed; the first is the one that the run was prepared with."""
    config = run.config
    yield config.seed, run.inputs.images
    for seed in range(config.seed + 1, config.seed + config.protocol.repeats):
        yield seed, load_images(config.data.name, **config.data.request, seed=seed)


def rows_of(images: ImageData, split: Split) -> Tensor:
    """Rows (N, d) float64: vectors as they are, images as a network takes them."""
    return images.standardise(split.images).flatten(1).double()


def refuse_text(config: Config, inputs: Inputs) -> None:
    """Raise ConfigError for tokens, which are no rows."""
    if inputs.images.kind == "text":
        raise ConfigError(
            f"data={config.data.name}, which holds text, does not go with protocol={config.protocol.name}; allowed: a "
            "data set of vectors or images."
        )

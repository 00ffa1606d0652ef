"""What the figures of real networks (E3, E4) share."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.lines import Line2D

from pipeline.studies.engine.results import Result
from pipeline.views.figures import TEST_COLOR, TRAIN_COLOR


def record_of(results: Sequence[Result]) -> pd.DataFrame:
    """The records of several runs, which differ in their seeds, as one; what led to a fixed head left out."""
    frame = pd.concat([result.record for result in results])
    return frame[frame.stage != "dufm"]


def count_of_networks(results: Sequence[Result]) -> str:
    """How many networks (seeds) there are of every setting, in words."""
    count = len({result.config.seed for result in results})
    return f"{count} network" + "s" * (count != 1)


def split_handles() -> list[Line2D]:
    """Of the legend: training and test images, before and after the activation, and the threshold."""
    dot = {"linestyle": "", "markersize": 4}
    return [
        Line2D([], [], color=TRAIN_COLOR, marker="o", label="training images", **dot),
        Line2D([], [], color=TRAIN_COLOR, marker="s", fillstyle="none", label="before the activation", **dot),
        Line2D([], [], color=TEST_COLOR, marker="o", label="test images", **dot),
        Line2D([], [], color=TEST_COLOR, marker="s", fillstyle="none", label="before the activation", **dot),
        Line2D([], [], color="grey", linewidth=0.8, linestyle="-.", label="threshold"),
    ]

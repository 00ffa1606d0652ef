"""The section ``data`` of the configuration: what is asked of every data set, and what each one owns."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from omegaconf import MISSING

from pipeline.runtime.discovery import names_in
from pipeline.runtime.sections import composed, owners_of
from pipeline.runtime.settings import knob
from pipeline.runtime.sources import own_settings_of

SETS = "pipeline.data.sets"
"""The folder of the data sets."""
STORAGES = ("auto", "memory", "disk")
"""Where decoded images lie."""
AUGMENTATIONS = ("none", "crop", "crop_flip")
GROUPS = ("invert", "patch")
"""What makes the images of group 1 differ from those of group 0."""
NO_FLIP = {"rate": 0.0, "group": None, "from": None, "to": None}
"""The keys of `data.flip`, and what they are where nothing is flipped."""


def known_datasets() -> tuple[str, ...]:
    """Names of all data sets; none of them is imported."""
    return names_in(SETS)


@dataclass
class SharedSettings:
    """Which images, which classes, how many."""

    name: str = knob(MISSING, "data set", choices=known_datasets)
    root: str | None = knob(None, "folder of the data set's files (torchvision's layout, or class folders)", path=True)
    download: bool = knob(False, "let torchvision download missing files into data.root")
    classes: Any = knob(None, "classes by index or name, in label order; null takes all")
    samples_per_class: int | None = knob(None, "balanced deterministic training subset; null takes all", ge=1)
    test_fraction: float = knob(0.2, "held-out share where the data set has no test split", gt=0, lt=1)
    image_size: int | None = knob(None, "scale and crop images to this side length", ge=1)
    augment: str = knob("none", "training augmentation of the backbone", choices=AUGMENTATIONS)
    imbalance: float | None = knob(
        None,
        "long tail: the last class's training samples over the first's; null leaves classes as they are",
        gt=0,
        le=1,
    )
    group: str | None = knob(
        None, "two groups whatever the class: images of group 1 are inverted, or marked by a patch", choices=GROUPS
    )
    group_share: float = knob(0.5, "share of the images of each class in group 1", gt=0, lt=1)
    flip: Any = knob(
        NO_FLIP,
        "wrong labels for training: rate, a share of the samples of a group and class (from), as class to",
        keys=tuple(NO_FLIP),
    )
    random_labels: bool = knob(False, "train on the labels in random order")
    foreign: str | None = knob(
        None, "data set whose test rows, without labels, are measured too", choices=known_datasets
    )
    foreign_root: str | None = knob(None, "folder of its files; null takes data.root", path=True)
    storage: str = knob(
        "auto",
        "decoded images of folders: in memory, or on disk in data.cache; auto: by what is free",
        choices=STORAGES,
    )
    cache: str | None = knob(
        None, "folder shared by runs, in which decoded images are kept; null keeps none", path=True
    )

    @property
    def request(self) -> dict[str, Any]:
        """What `pipeline.data` is asked for beside the name, every data set's own settings included: it may object."""
        return {key: value for key, value in asdict(self).items() if key not in ("name", "augment")}

    @property
    def relevant(self) -> dict[str, Any]:
        """All that matters for the chosen data set: what only other ones own is left out, and what is not done to it.

        So results that were kept before there was an option are still those without it.
        """
        foreign = {entry.name for entry in fields(self) if owners_of(entry) and self.name not in owners_of(entry)}
        undone = {key for key, default in OPTIONS.items() if getattr(self, key) == default}
        return {key: value for key, value in asdict(self).items() if key not in foreign | undone | PLACES}


OPTIONS = {"imbalance": None, "group": None, "group_share": 0.5, "flip": NO_FLIP, "random_labels": False}
OPTIONS |= {"foreign": None, "foreign_root": None}
PLACES = {"storage", "cache"}
"""Where images lie, which changes no number."""
"""What can be done to any data set, and when nothing is."""


DataConfig = composed("DataConfig", SharedSettings, own_settings_of(SETS, "data_set"), section="data", module=__name__)

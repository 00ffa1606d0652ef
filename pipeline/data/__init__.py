"""Data sets as tensors: digits, MNIST, Fashion-MNIST, CIFAR-10, folders of your own images; one file in `sets` each."""

from typing import TYPE_CHECKING

from pipeline.runtime.on_demand import passes_on

if TYPE_CHECKING:
    from pipeline.data.augment import Augmentation
    from pipeline.data.images import DataError, ImageData, Split
    from pipeline.data.load import class_names, load_images, validate_request
    from pipeline.data.loader import ROUND, ResidentLoader, Rounds
    from pipeline.data.registry import Request, Source, data_set
    from pipeline.data.settings import AUGMENTATIONS, known_datasets

__all__ = [
    "AUGMENTATIONS",
    "ROUND",
    "Augmentation",
    "DataError",
    "ImageData",
    "Request",
    "ResidentLoader",
    "Rounds",
    "Source",
    "Split",
    "class_names",
    "data_set",
    "known_datasets",
    "load_images",
    "validate_request",
]

__getattr__ = passes_on(__name__, __file__)

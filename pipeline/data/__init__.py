"""Image data sets as tensors: digits, MNIST, Fashion-MNIST, CIFAR-10 and folders of your own images."""

from pipeline.data.augment import AUGMENTATIONS, Augmentation
from pipeline.data.images import DataError, ImageData, Split
from pipeline.data.load import class_names, known_datasets, load_images, validate_request
from pipeline.data.loader import ROUND, ResidentLoader, Rounds

__all__ = [
    "AUGMENTATIONS",
    "ROUND",
    "Augmentation",
    "DataError",
    "ImageData",
    "ResidentLoader",
    "Rounds",
    "Split",
    "class_names",
    "known_datasets",
    "load_images",
    "validate_request",
]

"""Rows of another data set, which the network never learns: prepared like the known ones, without labels.

They are the test split of all its classes; of the same data set, that of the classes that are left out.
"""

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.data.assembly import scaled
from pipeline.data.images import DataError
from pipeline.data.registry import DataSet, Request, owners
from pipeline.data.selection import resolve_classes
from pipeline.runtime.sections import own_settings

LUMA = torch.tensor([0.299, 0.587, 0.114])
"""How much red, green and blue give to grey (ITU-R BT.601, as Pillow has it)."""


def foreign_request(request: Request) -> Request:
    """What is asked of the foreign data set: all of it, from its own folder, with settings of its own at defaults."""
    settings = own_settings("data", request.foreign, owners(), {})
    return Request(
        root=request.foreign_root or request.root,
        download=request.download,
        test_fraction=request.test_fraction,
        image_size=request.image_size,
        seed=request.seed,
        settings=settings,
    )


def check_foreign(known: DataSet, foreign: DataSet, request: Request) -> None:
    """Raise DataError where rows of one cannot be given to a network that has learnt the other."""
    if foreign.kind != known.kind or known.kind == "text":
        raise DataError(
            f"data.foreign={foreign.name} holds {foreign.kind}, and data={known.name} holds {known.kind}; allowed: a "
            "data set of the same kind, images or vectors."
        )
    if _is_same(known, foreign, request) and request.classes is None:
        raise DataError(
            f"data.foreign={foreign.name} is the data set itself; allowed: another one, or data.classes that leave "
            "some of its classes out."
        )


def foreign_images(known: DataSet, foreign: DataSet, request: Request, train: Tensor) -> Tensor:
    """Images (M, C, H, W) of the foreign data set, in shape and dtype like the known ones.

    Colours become grey by their luma, grey ones three equal channels; images are scaled to the same size.
    Raises DataError for vectors of another length, and where the same data set has no other class.
    """
    _, channels, height, width = train.shape
    asked = foreign_request(request)
    if asked.image_size is None and height == width and foreign.kind == "images":
        asked = replace(asked, image_size=height)
    source = foreign.open(asked)
    rows = torch.ones(len(source.test_labels), dtype=torch.bool)
    if _is_same(known, foreign, request):
        names = known.class_names(request)
        rows = ~torch.isin(source.test_labels, torch.tensor(resolve_classes(request.classes, names)))
        if not rows.any():
            raise DataError(
                f"data.foreign={foreign.name} is the data set itself, and data.classes takes all of its classes; "
                "allowed: another data set, or fewer classes."
            )
    _, images = source.read(torch.arange(0), rows.nonzero().squeeze(1))
    if images.dtype != train.dtype or (foreign.kind == "vectors" and images.shape[1:] != train.shape[1:]):
        raise DataError(
            f"data.foreign={foreign.name} holds {_in_words(images)}, and data={known.name} {_in_words(train)}; "
            "allowed: the same."
        )
    if foreign.kind == "vectors":
        return images
    return scaled(_with_channels(images, channels, foreign.name), height, width)


def _is_same(known: DataSet, foreign: DataSet, request: Request) -> bool:
    return known.name == foreign.name and request.foreign_root in (None, request.root)


def _with_channels(images: Tensor, channels: int, name: str) -> Tensor:
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1).contiguous()
    if channels == 1 and images.shape[1] == len(LUMA):
        grey = torch.einsum("nchw,c->nhw", images.float(), LUMA).unsqueeze(1)
        return grey.round().to(torch.uint8) if images.dtype == torch.uint8 else grey
    raise DataError(
        f"data.foreign={name} has {images.shape[1]} channels, the known images {channels}; allowed: 1 or 3."
    )


def _in_words(images: Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape[1:])}"

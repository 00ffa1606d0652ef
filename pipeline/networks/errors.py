"""Words that the errors of this package share."""

from collections.abc import Sequence


def unfit(name: str, image_shape: Sequence[int], reason: object) -> ValueError:
    """The error for images that a network cannot take."""
    return ValueError(
        f"{name} cannot take images of shape {tuple(image_shape)} ({first_line(reason)}); "
        "allowed: images it can take, see data.image_size."
    )


def first_line(reason: object) -> str:
    """Of a library's message, without the full stop."""
    return next(iter(str(reason).strip().splitlines()), type(reason).__name__).rstrip(".")

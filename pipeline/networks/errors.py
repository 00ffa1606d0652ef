"""Words that the errors of this package share."""

from collections.abc import Mapping, Sequence

from pipeline.runtime.text import first_line


def unfit(name: str, image_shape: Sequence[int], reason: object) -> ValueError:
    """The error for images that a network cannot take."""
    return ValueError(
        f"{name} cannot take images of shape {tuple(image_shape)} ({first_line(reason)}); "
        "allowed: images it can take, see data.image_size."
    )


def check_kwargs(kwargs: object) -> None:
    """Raise ValueError unless this is None or names the arguments of a network."""
    named = isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)
    if kwargs is not None and not named:
        raise ValueError(f"backbone.kwargs={kwargs} does not name its values; allowed: {{argument: value, ...}}.")

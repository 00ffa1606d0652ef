"""Bring your own text: a file in UTF-8."""

from pipeline.data import Request, Source, data_set
from pipeline.data.texts import HELD_OUT, TextSettings, read_text, text_source, vocabulary


def class_names(request: Request) -> tuple[str, ...]:
    """The vocabulary."""
    return vocabulary(read_text(request.root), request.settings)


def check(request: Request) -> None:
    """Raise DataError unless the file is text, and long enough for the settings."""
    read_text(request.root).check(request.settings)


@data_set(
    classes=class_names,
    needs_root=True,
    settings=TextSettings,
    check=check,
    kind="text",
    takes_file=True,
    test_fraction=HELD_OUT,
)
def text(request: Request) -> Source:
    """The file that `data.root` is, in windows of tokens."""
    return text_source(read_text(request.root), request)

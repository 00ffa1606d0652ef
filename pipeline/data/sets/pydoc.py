"""Python's own reference text, which comes with it: a language to model without any download."""

from functools import cache

from pipeline.data import Request, Source, data_set
from pipeline.data.texts import HELD_OUT, Text, TextSettings, text_source, vocabulary


def class_names(request: Request) -> tuple[str, ...]:
    """The vocabulary."""
    return vocabulary(reference_text(), request.settings)


def check(request: Request) -> None:
    """Raise DataError where the settings do not fit the text."""
    reference_text().check(request.settings)


@data_set(classes=class_names, settings=TextSettings, check=check, kind="text", test_fraction=HELD_OUT)
def pydoc(request: Request) -> Source:
    """`pydoc_data.topics` of the standard library, topics in sorted order joined by one newline.

    The text differs between versions of Python, so a run records its SHA-256 (CPython 3.11.7: 465,048 characters,
    118,249 tokens of 3,157 types, SHA-256 2a95af4ac93f5b71...).
    """
    return text_source(reference_text(), request)


@cache
def reference_text() -> Text:
    """The text in tokens."""
    from pydoc_data.topics import topics

    return Text.of("pydoc_data.topics", "\n".join(topics[name] for name in sorted(topics)))

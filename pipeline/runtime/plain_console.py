"""A console of rich's on which nothing but rich itself commands the terminal."""

from typing import Any

from rich.console import Console

from pipeline.runtime.text import printable_lines


class PlainConsole(Console):
    """Text that is printed is text; rich itself writes what commands the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable_lines(one) if isinstance(one, str) else one for one in objects), **options)

"""Figures and tables in the size in which they are committed to ``docs/``."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from pipeline.runtime.files import atomic

COLOURS = 128  # a chart needs few; a palette makes its PNG about three times smaller


def publish(out: Path, docs: Path, studies: Iterable[str]) -> None:
    """Copy the tables (CSV, markdown) and the figures (PNG, with a palette) of the named studies to ``docs``."""
    for study in studies:
        for table in sorted((out / "tables").glob(f"{study}[._]*")):
            with atomic(docs / table.name) as path:
                shutil.copyfile(table, path)
        for figure in sorted((out / "figures").glob(f"{study}*.png")):
            with Image.open(figure) as image, atomic(docs / figure.name) as path:
                image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)

"""Finding and verifying the files of the published data sets, with errors that name the file."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.data.images import DataError
from pipeline.runtime.lock import one_at_a_time


def require_files(root: Path, folder: str, names: Iterable[str]) -> None:
    """Raise DataError unless every one of `names` lies in `<root>/<folder>`, or in the root itself (``""``)."""
    directory = root / folder
    if not directory.is_dir():
        raise DataError(
            f"data.root={root} has no folder {folder}; allowed: a folder that has it, or data.download=true."
        )
    for name in names:
        if not (directory / name).is_file():
            packed = f" (only {name}.gz: unpack it)" if (directory / f"{name}.gz").is_file() else ""
            place = f"{folder}/{name}" if folder else name
            raise DataError(f"data.root={root}: the file {place} is missing{packed}; allowed: a folder that has it.")


def download_missing(dataset: str, root: Path, parts: Sequence[Mapping[str, str]] = ({},)) -> None:
    """Let torchvision's class `dataset` fetch what is missing under `root`; DataError when it cannot.

    Args:
        parts: arguments for each time that it is called, where it fetches only what these say.

    The processes of a run that start together fetch one after another: the second finds the files there.
    """
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(root / ".download.lock"):
            for part in parts:
                getattr(datasets, dataset)(root, download=True, **part)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"data.download=true: {dataset} could not be fetched into data.root={root} ({reason})."
        ) from error


def check_md5(path: Path, content: bytes, expected: str) -> None:
    """Raise DataError unless `content`, read from `path`, has the published MD5."""
    _compare(path, hashlib.md5(content, usedforsecurity=False).hexdigest(), expected)


def check_md5_of_file(path: Path, expected: str) -> None:
    """The same for a file that is not read whole."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    _compare(path, found.hexdigest(), expected)


def _compare(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(f"{path} is not the published file: its MD5 is {found}, it should be {expected}.")

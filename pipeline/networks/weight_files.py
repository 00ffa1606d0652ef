"""The named tensors of a file that some training program wrote; no code in it is run."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

NOTES = (
    *("argparse", "pathlib", "types", "typing", "collections", "datetime", "numpy", "_codecs", "omegaconf", "yacs"),
    *("addict", "easydict", "ml_collections", "mmengine.config", "mmcv.utils.config", "lightning_fabric.utilities"),
    *("pytorch_lightning.utilities", "lightning.pytorch.utilities", "lightning.fabric.utilities"),
)
"""Packages whose classes hold notes beside the weights: settings, paths, dates, single numbers of NumPy."""
TYPES = frozenset(("bool", "bytes", "complex", "dict", "float", "int", "list", "set", "str", "tuple"))
"""Built-in types, which typed settings name."""
MOST_NOTES = 100
"""Different classes of notes in a file; more are no notes."""
DEEPEST = 8
"""Dicts within dicts that are looked into."""


class Note:
    """Stands for an object that is not wanted: whatever unpickling does with one, nothing happens."""

    def __new__(cls, *arguments: object, **more: object) -> "Note":
        return super().__new__(cls)

    def __init__(self, *arguments: object, **more: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Forget it."""

    def extend(self, items: object) -> None:
        """Forget them."""


def named_tensors(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; names within dicts within dicts are joined by dots.

    Args:
        key: the setting that named the file, for messages.

    Raises:
        ValueError: in one sentence starting with `key=path`, if the file cannot be read, or holds more than tensors,
            plain containers and notes (`NOTES`).
    """
    allowed = "allowed: a .safetensors file, or a state dict written by torch.save"
    if not path.exists():
        raise ValueError(f"{key}={path} does not exist; {allowed}.")
    if path.is_dir():
        raise ValueError(f"{key}={path} is a folder; {allowed}.")
    if not path.is_file():
        raise ValueError(f"{key}={path} is a device or a pipe; {allowed}.")
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        content = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    except Exception as error:
        if _is_refused_pickle(path, error):
            what = f" ({name})" if (name := _refused(error)) else ""
            raise ValueError(
                f"{key}={path} holds more than tensors and plain containers{what}, and nothing else is "
                f"unpickled; {allowed}."
            ) from error
        reason = _reason(error)
        raise ValueError(f"{key}={path} cannot be read, it may be damaged ({reason}); {allowed}.") from error
    tensors = dict(_tensors(content))
    if not tensors:
        raise ValueError(f"{key}={path} holds no tensors by name; {allowed}.")
    return tensors


def named_numbers(path: Path, key: str) -> dict[str, int]:
    """The whole numbers that a file holds by name beside its tensors: how far a training was, say.

    Of `.safetensors` those that its metadata spell. Arguments and errors as of `named_tensors`.
    """
    named_tensors(path, key)  # which says what is wrong with a file
    if _is_safetensors(path):
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
        return {name: int(text) for name, text in told.items() if re.fullmatch(r"\d{1,15}", text)}
    content = _read_pickle(path)
    found = content.items() if isinstance(content, Mapping) else ()
    single = {
        name: value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        for name, value in found
        if isinstance(name, str)
    }
    return {name: value for name, value in single.items() if isinstance(value, int) and not isinstance(value, bool)}


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    return load_file(path)


def _read_pickle(path: Path) -> object:
    notes: dict[str, type[Note]] = {}
    with warnings.catch_warnings():
        # About pickle protocols and TorchScript files; what they lead to is an error or all right.
        warnings.simplefilter("ignore")
        while True:
            try:
                # The restricted unpickler takes our word for a class: it gets one that does nothing.
                with torch.serialization.safe_globals([(kind, name) for name, kind in notes.items()]):
                    return torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                name = _refused(error)
                name = f"builtins.{name}" if name in TYPES else name
                if not _is_note(name) or name in notes or len(notes) == MOST_NOTES:
                    raise
                notes[name] = type("Note", (Note,), {})  # one each, because the unpickler keeps them by class


def _is_note(name: str) -> bool:
    return name.removeprefix("builtins.") in TYPES or any(name.startswith(f"{package}.") for package in NOTES)


def _is_refused_pickle(path: Path, error: Exception) -> bool:
    """Whether a sound file was refused for what it holds: on other bytes the restricted unpickler stumbles as well."""
    if _is_safetensors(path):
        return False
    with path.open("rb") as stream:
        is_pickle = stream.read(1) == b"\x80"
    refused = isinstance(error, pickle.UnpicklingError) and (
        zipfile.is_zipfile(path) or (is_pickle and "GLOBAL" in str(error))
    )
    return refused or "TorchScript" in str(error)


def _is_safetensors(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _reason(error: Exception) -> str:
    """The first sentence of what a library says; what torch.load says of a file that is not its own is no help."""
    text = " ".join(str(error).split())
    foreign = isinstance(error, pickle.UnpicklingError | LookupError | EOFError) or "enforce fail" in text
    return "it is no file of torch.save" if foreign or not text else text.partition(". ")[0].rstrip(".")


def _refused(error: Exception) -> str:
    """The class or function that the restricted unpickler stopped at, or ""."""
    match = re.search(r"GLOBAL:? ([\w.]+)", str(error))
    return match[1] if match else ""


def _tensors(content: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dicts; values beside them (epoch, version), and what has no name, are not ours."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    for name, value in content.items():
        if isinstance(name, str):
            if _is_dense(value):
                yield f"{prefix}{name}", value
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)

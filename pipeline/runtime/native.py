"""C++ kernels that are compiled on first use by whatever compiler there is, and kept in the user's cache folder."""

import ctypes
import hashlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-fPIC", "-shared", "-pthread")

INCLUDE = re.compile(r'^#include "(.+)"', re.MULTILINE)

log = logging.getLogger(__name__)


def built(source: Path, otherwise: str) -> ctypes.CDLL | None:
    """The compiled file of C++, or None where it cannot be had; the log then says why, and what happens `otherwise`."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        log.info("no C++ compiler: %s", otherwise)
        return None
    try:
        return ctypes.CDLL(str(_compiled(source, compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        log.info("%s does not build, %s: %s", source.name, otherwise, error)
        return None


@cache
def openmp() -> int | None:
    """The entry of the OpenMP that PyTorch runs its threads with, for `pieces.h`; None where it is another library."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None


def _compiled(source: Path, compiler: str) -> Path:
    """Path of the shared library; its name stands for the source with what it includes, the flags, the compiler
    and this processor."""
    text = b"".join(path.read_bytes() for path in (source, *_included(source)))
    key = hashlib.sha256(text + repr((compiler, FLAGS)).encode() + _macros(compiler)).hexdigest()[:16]
    folder = _cache_folder()
    path = folder / f"{source.stem}_{key}.so"
    if not path.exists():
        handle, unfinished = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(handle)
        try:
            command = [compiler, *FLAGS, str(source), "-o", unfinished]
            subprocess.run(command, capture_output=True, check=True, timeout=300)
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    return path


def _included(source: Path) -> list[Path]:
    """The files that it includes by a path from its own folder, and those that these include, once each."""
    found, left = [], [source]
    while left:
        file = left.pop()
        names = INCLUDE.findall(file.read_text())
        new = [path for name in names if (path := file.parent / name).is_file() and path not in found]
        found += new
        left += new
    return found


@cache
def _macros(compiler: str) -> bytes:
    """What the compiler knows of itself and of this processor."""
    command = [compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


def _cache_folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deep-neural-collapse"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="deep-neural-collapse-"))

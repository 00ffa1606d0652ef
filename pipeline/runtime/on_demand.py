"""Packages that pass names on without importing what defines them until somebody asks."""

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path


def passes_on(package: str, file: str) -> Callable[[str], object]:
    """A package's ``__getattr__``, for the names that its file imports under ``if TYPE_CHECKING``.

    A package that PyTorch's formulas live in holds light parts, too, such as its settings; whoever needs only these
    (``--help``, a mistyped argument) does not wait for PyTorch.

        if TYPE_CHECKING:
            from pipeline.data.load import load_images

        __getattr__ = passes_on(__name__, __file__)
    """

    @cache
    def homes() -> dict[str, tuple[str, str]]:
        return {
            name.asname or name.name: (statement.module, name.name)
            for block in ast.parse(Path(file).read_text(encoding="utf-8")).body
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for statement in block.body
            if isinstance(statement, ast.ImportFrom) and statement.module
            for name in statement.names
        }

    def get(name: str) -> object:
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, original = homes()[name]
        value = getattr(import_module(module), original)
        setattr(sys.modules[package], name, value)
        return value

    return get

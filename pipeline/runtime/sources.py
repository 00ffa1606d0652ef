"""What the modules of a package register, read from their source: none of them, nor PyTorch, is imported for it.

Where the file is the registration, ``--help`` and the check of an argument need the names and the settings of all
files, and nothing else of them.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from operator import attrgetter
from pathlib import Path
from types import CodeType, ModuleType

from pipeline.runtime.discovery import names_in

OURS = __name__.partition(".")[0]


@cache
def decorated(package: str, decorator: str) -> dict[str, tuple[str, ...]]:
    """Module -> the names of its functions under a decorator, in the order in which they are defined."""
    trees = {name: _tree(f"{package}.{name}") for name in names_in(package)}
    return {name: tuple(function.name for function, _ in _under(tree, decorator)) for name, tree in trees.items()}


@cache
def called(package: str, function: str) -> frozenset[str]:
    """The modules of a package with a line that does nothing but call a function of that name."""
    return frozenset(
        name
        for name in names_in(package)
        for line in _tree(f"{package}.{name}").body
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Call) and ast.unparse(line.value.func) == function
    )


@cache
def own_settings_of(package: str, decorator: str) -> dict[str, type | None]:
    """Module -> the class that it gives its decorator as ``settings``, None if it gives none.

    The class is made from as much of the module's source as it takes. It is equal in all its fields to the module's
    own, but is not the same one.
    """
    return {name: _settings(f"{package}.{name}", decorator) for name in names_in(package)}


def _settings(module: str, decorator: str) -> type | None:
    if "settings=" not in _text(module):  # most give none, and need not be parsed
        return None
    for _, call in _under(_tree(module), decorator):
        for keyword in call.keywords if isinstance(call, ast.Call) else ():
            if keyword.arg == "settings" and not isinstance(keyword.value, ast.Constant):
                name = ast.unparse(keyword.value)
                return attrgetter(name)(_part(module, name.partition(".")[0]))
    return None


def _under(tree: ast.Module, decorator: str) -> Iterator[tuple[ast.FunctionDef, ast.expr]]:
    for function in tree.body:
        for found in function.decorator_list if isinstance(function, ast.FunctionDef) else ():
            called = found.func if isinstance(found, ast.Call) else found
            if ast.unparse(called).rpartition(".")[2] == decorator:
                yield function, found


def _part(module: str, name: str) -> ModuleType:
    """A module of that name, known to nobody, after only what one of its names depends on has run.

    What it takes from modules of this package that nobody has imported yet is made from a part of those.
    """
    body, taken = [], {}
    statements, names = _needed(_tree(module), name)
    for statement in statements:
        if isinstance(statement, ast.ImportFrom) and _is_ours_and_new(statement.module):
            for alias in statement.names:
                if (here := alias.asname or alias.name) in names:
                    taken[here] = getattr(_part(statement.module, alias.name), alias.name)
        else:
            body.append(statement)
    loader = _LoaderOfPart(module, str(_file(module)))
    loader.part = ast.Module(body, type_ignores=[])
    part = module_from_spec(spec_from_loader(module, loader))
    vars(part).update(taken)
    loader.exec_module(part)
    return part


class _LoaderOfPart(SourceFileLoader):
    part: ast.Module

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.part, self.path)


def _needed(tree: ast.Module, name: str) -> tuple[list[ast.stmt], set[str]]:
    """The statements of a module that one of its names depends on, in order, and the names in them."""
    wanted, kept = {name}, set()
    bound = {statement: _bound(statement) for statement in tree.body}
    while fresh := [statement for statement in tree.body if statement not in kept and bound[statement] & wanted]:
        kept |= set(fresh)
        names = (node for statement in fresh for node in ast.walk(statement) if isinstance(node, ast.Name))
        wanted |= {node.id for node in names if isinstance(node.ctx, ast.Load)}
    # Without `from __future__ import annotations`: types are looked up in the part, where their names are.
    return [statement for statement in tree.body if statement in kept], wanted


def _is_ours_and_new(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == OURS and module not in sys.modules


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement gives a meaning."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    nodes = list(ast.walk(statement))
    names = {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    return names | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_text(module), str(_file(module)))


def _text(module: str) -> str:
    return _file(module).read_text(encoding="utf-8")


@cache
def _file(module: str) -> Path:
    return Path(find_spec(module).origin)

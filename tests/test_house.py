"""The house is as README.md draws it: one direction of imports, tests that mirror it, links that lead somewhere.

All of it is read from the files; nothing is imported.
"""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
ROOMS = ("cli", "studies", "runs", "measure", "views", "storage", "config")
ROOMS += ("networks", "data", "dufm", "theory", "metrics", "runtime")
"""The folders of ``pipeline/``: each imports only those behind it in this list, and itself."""
MODULES = {
    ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((REPO / "pipeline").rglob("*.py"))
}
TESTS = sorted((REPO / "tests").rglob("test_*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def room(module: str) -> str | None:
    """The folder of ``pipeline/`` that a module lies in; None for the package itself and its `__main__`."""
    names = module.split(".")[1:2]
    return names[0] if names and (REPO / "pipeline" / names[0]).is_dir() else None


def imports(node: ast.AST, *, running: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of everything of ours that is imported anywhere below a node.

    Args:
        running: leave out what stands under ``if TYPE_CHECKING``, which no running program imports.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):  # in which nothing is imported
            continue
        if isinstance(child, ast.If) and running and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from imports(other, running=running)
        elif isinstance(child, ast.Import):
            yield from ((child.lineno, name.name) for name in child.names if name.name.startswith("pipeline."))
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: an import that is not from the top cannot be followed"
            if child.module.split(".")[0] == "pipeline":
                yield from ((child.lineno, f"{child.module}.{name.name}") for name in child.names)
        else:
            yield from imports(child, running=running)


def test_the_list_of_rooms_is_that_of_the_folders():
    folders = {path.name for path in (REPO / "pipeline").iterdir() if list(path.glob("*.py"))}
    assert folders == set(ROOMS) and len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("here", ROOMS)
def test_a_folder_imports_only_folders_below_it(here):
    allowed = ROOMS[ROOMS.index(here) :]
    wrong = [
        f"{MODULES[module].relative_to(REPO)}:{line} imports {name}"
        for module in MODULES
        if room(module) == here
        for line, name in imports(tree(MODULES[module]), running=True)
        if room(name) not in allowed
    ]
    assert wrong == [], f"{here} may import {', '.join(allowed)}"


@cache
def imported(path: Path) -> list[tuple[int, str]]:
    """All `imports` of a file."""
    return list(imports(tree(path), running=False))


@cache
def defined_in(name: str) -> str:
    """The module that a full name comes from, also where a package only passes it on."""
    while name not in MODULES:
        package, _, attribute = name.rpartition(".")
        passed_on = {}
        if package in MODULES:
            passed_on = {full.rpartition(".")[2]: full for _, full in imported(MODULES[package])}
        name = passed_on.get(attribute, package)
    return name


@cache
def uses(path: Path) -> frozenset[str]:
    """Modules of ours that a file imports, or that define what it imports."""
    return frozenset(defined_in(name) for _, name in imported(path))


@cache
def is_substance(module: str) -> bool:
    """Whether there is anything to test: a function or a method; programs (``__main__``) are tested as processes."""
    functions = any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree(MODULES[module])))
    program = any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree(MODULES[module]).body
    )
    return functions and not program and MODULES[module].stem != "__init__"


def test_every_module_has_a_test_in_the_folder_of_its_room():
    """A test file below ``tests/<room>`` covers a module of that room that

    * it is named after: ``test_<module>.py``, ``test_<module>_<more>.py``, or ``test_<part>.py`` of ``<part>_<more>``,
    * it imports, or from which a name comes that it imports.

    What a covered module takes from its own room is a part of it: what it imports, and, where the file is the
    registration (it imports `pipeline.runtime.discovery`), all modules beside it and in the folder above.
    """
    covered: set[str] = set()
    for path in TESTS:
        here, subject = path.relative_to(REPO / "tests").parts[0], path.stem.removeprefix("test_")
        own = {module for module in MODULES if room(module) == here}
        covered |= own & uses(path)
        covered |= {module for module in own if _named_after(subject, MODULES[module].stem)}
    fresh = covered
    while fresh:
        fresh = {part for module in fresh for part in _parts(module)} - covered
        covered |= fresh
    wanted = [module for module in MODULES if room(module) and is_substance(module)]
    assert "\n".join(module for module in wanted if module not in covered) == ""


def _named_after(subject: str, name: str) -> bool:
    return f"{subject}_".startswith(f"{name}_") or name.startswith(f"{subject}_")


def _parts(module: str) -> set[str]:
    taken = set(uses(MODULES[module]))
    if "pipeline.runtime.discovery" in taken:
        folders = MODULES[module].parents[:2]
        taken |= {other for other in MODULES if MODULES[other].parent in folders}
    return {part for part in taken if room(part) == room(module)}


def test_tests_lie_in_folders_of_the_package_or_look_at_whole_runs():
    whole_runs = {"integration", "cluster", "fuzz", "gpu"}  # by the command, in processes of its own
    folders = {path.parent.relative_to(REPO / "tests") for path in TESTS}
    strange = {str(folder) for folder in folders if not (REPO / "pipeline" / folder).is_dir()}
    assert strange <= whole_runs


def test_no_two_files_of_tests_have_one_name():
    """There are no packages in ``tests/``: a name is a module's, for all folders together."""
    names = Counter(path.name for path in (REPO / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []


LINK = re.compile(r"\[[^]]*\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"")


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (REPO / "docs").glob("*.md"))])
def test_links_to_files_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", (REPO / page).read_text(), flags=re.M | re.S)
    links = defaultdict(list)
    for groups in LINK.findall(text):
        target, _, anchor = "".join(groups).partition("#")
        if not re.match(r"[a-z]+:", target):
            links[target].append(anchor)
    files = {target: (REPO / page).parent / target if target else REPO / page for target in links}
    assert [target for target, file in files.items() if not file.exists()] == []
    pages = {target: file for target, file in files.items() if file.suffix == ".md"}
    missing = [f"{target}#{name}" for target in pages for name in links[target] if name not in headings(pages[target])]
    assert [name for name in missing if not name.endswith("#")] == []


def headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them: lower case, no punctuation, dashes for spaces."""
    found = re.findall(r"^#+ +(.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in found}

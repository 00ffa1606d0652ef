"""Which tests are slow: those that start a process, a server, a browser or a cluster, read from their code.

Besides these a test that takes seconds for another reason bears ``@pytest.mark.slow`` itself. Nothing else is to be
kept up to date: a test that begins to use one of `STARTERS`, by a fixture or by a function of the tests, is slow.
"""

import inspect
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

TESTS = str(Path(__file__).parents[1])
STARTERS = {"subprocess", "multiprocessing", "pty", "playwright", "commands", "wandb_server", "local_cluster"}
"""Modules whose use starts something."""
STARTING = ("hydra/launcher=", "--launcher", "trainer=ddp", "trainer.devices=")
"""Beginnings of arguments of the command by which it starts processes itself."""
_known: dict[object, bool] = {}


def is_slow(item: pytest.Item) -> bool:
    """Whether a test, or a fixture that is made for it, starts something."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(definition.func for definitions in fixtures for definition in definitions)]
    return any(_starts(function) for function in functions)


def _starts(thing: object) -> bool:
    """Whether a function, class or module is one of `STARTERS`, or uses one, directly or by what else it uses."""
    if isinstance(thing, ModuleType):
        return thing.__name__.partition(".")[0] in STARTERS
    thing = inspect.unwrap(getattr(getattr(thing, "hypothesis", None), "inner_test", thing))
    if getattr(thing, "__module__", None) in STARTERS:
        return True
    if isinstance(thing, type):
        return any(_starts(method) for method in vars(thing).values() if isinstance(method, FunctionType))
    if not isinstance(thing, FunctionType) or not thing.__code__.co_filename.startswith(TESTS):
        return False
    if thing not in _known:
        _known[thing] = False  # while it is looked at: functions may call each other
        names, texts = set(), []
        _read(thing.__code__, names, texts)
        _known[thing] = (
            bool(names & STARTERS)
            or any(text.partition(".")[0] in STARTERS or text.startswith(STARTING) for text in texts)
            or any(_starts(thing.__globals__[name]) for name in names if name in thing.__globals__)
        )
    return _known[thing]


def _read(code: object, names: set[str], texts: list[str]) -> None:
    """Collect the names and the texts of code and of all that is defined within it."""
    if isinstance(code, str):
        texts.append(code)
    elif isinstance(code, CodeType):
        names.update(code.co_names)
    for part in code.co_consts if isinstance(code, CodeType) else code if isinstance(code, tuple) else ():
        _read(part, names, texts)

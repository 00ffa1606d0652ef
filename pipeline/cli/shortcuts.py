"""What Hydra does twice, or for a page that shows none of it, and need not do here."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from hydra._internal.hydra import Hydra

from pipeline.cli.arguments import may_sweep


@contextmanager
def shortcuts(flags: Namespace) -> Iterator[None]:
    """Within, Hydra

    * composes the configuration once: it would do so before, only to see whether files or arguments ask for a multirun,
      where neither can;
    * does not list all choices for ``--help``, on whose page we list them.
    """
    asked = flags.multirun or may_sweep(flags) or flags.config_name or flags.config_path
    replaced = {} if asked else {"get_mode": lambda *_, **__: None}
    if flags.help:
        replaced["format_config_groups"] = lambda *_, **__: ""
    kept = {name: getattr(Hydra, name) for name in replaced}
    for name, function in replaced.items():
        setattr(Hydra, name, function)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(Hydra, name, function)

"""Protocols: each composes the shared stages into one experiment and returns its `Outcome`.

Add one by writing a module here with a function of its name, and naming it in ``PROTOCOLS`` and in ``conf/protocol/``.
"""

from importlib import import_module

from pipeline.runs.run import Outcome, Run

PROTOCOLS = ("frozen_features", "end_to_end", "fixed_head", "dufm")


def perform(run: Run) -> Outcome:
    """Perform the protocol that the configuration names; Lightning, slow to import, comes with those that train."""
    name = run.config.protocol.name
    return getattr(import_module(f"pipeline.runs.protocols.{name}"), name)(run)

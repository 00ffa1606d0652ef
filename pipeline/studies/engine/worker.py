"""``python -m pipeline.studies.engine.worker THREADS``: a process in which runs of studies are made, one after another.

Its standard input holds one order a line (`Order.plain` as JSON), its standard output one answer for each: ``{done}``,
``{in_use_by: WHO}``, or ``{refused | failed: WHY}``. The input ends when the parent has no more orders, or is gone: a
run that is then in progress keeps what it has, as if it had got a SIGTERM.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from queue import SimpleQueue
from typing import Any

from pipeline.runtime.console import VERBOSE, verbosity
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.interruption import Interrupted, interruption
from pipeline.runtime.program import ended_in_a_sentence
from pipeline.runtime.startup import begin

SECONDS_TO_LEAVE = 60.0
"""After the parent is gone; whoever has not kept what it has by then is stuck."""
MOST_THREADS = 1024


def main() -> None:
    """Work until there are no more orders."""
    begin()
    interruption.listen()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed is no answer
    logging.basicConfig(format="%(message)s", level=logging.WARNING)  # the lines of many runs would mix
    logging.root.handlers[0].setLevel(logging.WARNING)
    logging.getLogger("pipeline").setLevel(logging.INFO)  # for the log of each run
    orders: SimpleQueue[str | None] = SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(orders, busy), daemon=True, name="orders").start()
    try:
        import torch

        torch.set_num_threads(_threads(sys.argv[1:]))
        while (line := orders.get()) is not None:
            answer = _perform(_order(line))
            busy.clear()
            print(json.dumps(answer), file=answers, flush=True)
    except Interrupted as stop:
        sys.exit(stop.exit_code)
    except BrokenPipeError:
        sys.exit(1)  # nobody is there to hear it


def _threads(arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0].isdecimal() or not 1 <= int(arguments[0]) <= MOST_THREADS:
        raise ConfigError(f"{' '.join(arguments) or 'nothing'} is no number of threads; allowed: 1..{MOST_THREADS}.")
    return int(arguments[0])


def _listen(orders: "SimpleQueue[str | None]", busy: threading.Event) -> None:
    """Pass orders on; at their end, end a run that is in progress."""
    for line in sys.stdin:
        busy.set()
        orders.put(line)
    orders.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_TO_LEAVE)
        os._exit(1)


def _order(line: str) -> dict[str, Any]:
    try:
        order = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError("a line of standard input is no order; allowed: what a study sends.") from error
    if not isinstance(order, dict):
        raise ConfigError("a line of standard input is no order; allowed: what a study sends.")
    return order


def _perform(order: dict[str, Any]) -> dict[str, Any]:
    from pipeline.studies.engine.jobs import Order

    try:
        owner = Order.from_plain(order).perform()
    except ConfigError as error:
        return {"refused": str(error)}
    except Exception as error:
        if verbosity() == VERBOSE:  # for the eyes; the parent tells the rest
            traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"done": True} if owner is None else {"in_use_by": owner}


if __name__ == "__main__":
    with ended_in_a_sentence():
        main()

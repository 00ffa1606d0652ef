"""The processes that make several runs at once.

Each is a session of its own: a Ctrl-C reaches only the parent, which decides. It ends when the parent does, however
that ends: its standard input is a pipe that only the parent holds open (`pipeline.studies.engine.worker`).
"""

import json
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pipeline.runtime.children import module_command
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.studies.engine.jobs import Order

SECONDS_TO_STOP = 60.0
"""How long a worker may take to keep a checkpoint, after it was asked to end."""


@dataclass
class Worker:
    """A process that makes a run at a time, and the order it is busy with."""

    process: subprocess.Popen
    order: Order | None = None

    @classmethod
    def start(cls, threads: int) -> "Worker":
        """A process with so many CPU threads."""
        command = module_command("pipeline.studies.engine.worker", str(threads))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return cls(subprocess.Popen(command, start_new_session=True, **pipes))

    def give(self, order: Order) -> None:
        """Have a run made."""
        self.order = order
        with suppress(BrokenPipeError):  # it has died, which `answer` notices
            self.process.stdin.write(json.dumps(order.plain()) + "\n")
            self.process.stdin.flush()

    def answer(self) -> tuple[Order, str | None]:
        """Wait for the end of the run; returns its order and who else makes it, None if it is finished.

        Raises:
            ConfigError: it could not begin.
            RunError: it failed in a way that no run should, or the worker died.
        """
        order, self.order = self.order, None
        line = self.process.stdout.readline()
        if not line:
            how = self.process.wait()
            raise RunError(
                f"the process that made {order.folder} ended without an answer (exit code {how}"
                f"{', perhaps for want of memory: fewer --jobs need less' if how == -9 else ''})."
            )
        said = json.loads(line)
        if "refused" in said:
            raise ConfigError(f"{order.folder}: {said['refused']}")
        if "failed" in said:
            raise RunError(f"{order.folder}: {said['failed']}")
        return order, said.get("in_use_by")


class Workers:
    """A number of them."""

    def __init__(self, count: int, threads: int) -> None:
        self._all = [Worker.start(threads) for _ in range(count)]

    @property
    def idle(self) -> list[Worker]:
        """Those without an order."""
        return [worker for worker in self._all if worker.order is None]

    @property
    def busy(self) -> list[Worker]:
        """Those with one."""
        return [worker for worker in self._all if worker.order is not None]

    def ready(self, seconds: float) -> Iterator[Worker]:
        """Busy ones that have something to say, waited for at most so long."""
        outputs = {worker.process.stdout: worker for worker in self.busy}
        for output in select.select(list(outputs), [], [], seconds)[0]:
            yield outputs[output]

    def stop(self, processes: Sequence[Worker]) -> None:
        """Have these end, keeping what they have, in the time there is for it."""
        for worker in processes:
            worker.process.terminate()
        deadline = time.monotonic() + SECONDS_TO_STOP
        for worker in processes:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """End all of them, now."""
        for worker in self._all:
            if worker.order is not None:
                worker.process.kill()
            with suppress(BrokenPipeError):
                worker.process.stdin.close()  # an idle one ends by itself
        for worker in self._all:
            worker.process.wait()
            worker.process.stdout.close()


@contextmanager
def working(count: int, threads: int) -> Iterator[Workers]:
    """So many workers, with so many CPU threads each; where one fails, the others keep what they have and end."""
    workers = Workers(count, threads)
    try:
        yield workers
    except Exception:
        workers.stop(workers.busy)
        raise
    finally:
        workers.close()  # at once, where somebody has become impatient

"""A client of `server.py`: run command lines in folders of their own, and say what is left behind."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120.0
"""After which a command line counts as hanging, and is killed."""


@dataclass(frozen=True)
class Done:
    """What a command line came to; `ran` holds the configurations that passed, where nothing was executed."""

    code: int | None
    out: str
    err: str
    ran: list[dict]


class Commands:
    """Context in which command lines can be run."""

    def __enter__(self) -> "Commands":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "Agg"}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()

    def run(
        self, *arguments: str, folder: Path, execute: bool = True, seconds: float = SECONDS, **more: object
    ) -> Done:
        """Run a command line in `folder`; with ``execute=False`` only up to where the work would begin.

        more: `environment`, variables to add; `user`, whose rights it has; `pid_file`, where its process id is written.
        """
        request = {"arguments": arguments, "folder": str(folder), "seconds": seconds, "execute": execute, **more}
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return Done(**json.loads(self._server.stdout.readline()))


def content(folder: Path) -> dict[str, tuple]:
    """Every path below a folder with its kind, and of a file the bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }

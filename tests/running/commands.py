"""A client of `server.py`: run command lines in folders of their own, and say what is left behind."""

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

SECONDS = 300.0
"""After which a command line counts as hanging and is killed, and what is waited for as not coming."""
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "Agg"}
"""What the server sets, for every command line, too: tests share few cores."""
SESSION = "PYTEST_XDIST_TESTRUNUID"
"""Names the session to all of its processes, where it has several."""
SERVICE = "WANDB_SERVICE"
"""By which wandb tells children of a process that has used it to use its service instead of one of their own."""


@dataclass(frozen=True)
class Done:
    """What a command line came to; `ran` holds the configurations that passed, where nothing was executed."""

    code: int | None
    out: str
    err: str
    ran: list[dict]


class Command:
    """A command line that is being run, by the process ``pid``."""

    def __init__(self, connection: socket.socket, request: dict) -> None:
        self._connection, self._done = connection, None
        weakref.finalize(self, connection.close)  # also of a test that failed before it asked for the end
        connection.sendall(f"{json.dumps(request)}\n".encode())
        with connection.makefile("rb", buffering=0) as answer:  # not a byte of what is said in the end
            self.pid: int = json.loads(answer.readline())["pid"]

    def is_over(self) -> bool:
        return self._done is not None or bool(select.select([self._connection], [], [], 0)[0])

    def wait_for(self, *files: Path) -> None:
        """Return when these files are there; fail if the process ends before."""
        wait_until(lambda: self.is_over() or all(file.exists() for file in files))
        assert not self.is_over(), self.end()

    def end(self) -> Done:
        """What it comes to, when it has ended."""
        if self._done is None:
            with self._connection, self._connection.makefile() as answer:
                self._done = Done(**json.loads(answer.readline()))
        return self._done


def wait_until(so: Callable[[], object], seconds: float = SECONDS, pause: float = 0.001) -> None:
    """Return when something is true; fail if it is not in time."""
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, f"nothing happened within {seconds:g} s"
        time.sleep(pause)


def connection() -> socket.socket:
    """To the server of this test session, which its processes (of xdist) share; whoever needs it first starts it."""
    address = f"\0dnc-tests-{os.environ.get(SESSION, os.getpid())}"
    end = time.monotonic() + SECONDS
    while True:
        ours = socket.socket(socket.AF_UNIX)
        try:
            ours.connect(address)
            return ours
        except ConnectionRefusedError:
            ours.close()
        assert time.monotonic() < end, "no server"
        with socket.socket(socket.AF_UNIX) as door:
            try:
                door.bind(address)
            except OSError:  # somebody else is just starting one
                time.sleep(0.01)
                continue
            door.listen()
            _start_server(door)


def _start_server(door: socket.socket) -> None:
    environment = os.environ | QUIET
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
    # Nobody waits for it: it may outlive this process of the session, and ends with the last.
    os.posix_spawn(command[0], command, environment, file_actions=[(os.POSIX_SPAWN_DUP2, door.fileno(), 0)])


class Commands:
    """What the server is asked to run: any number of command lines at once."""

    def __init__(self) -> None:
        self._door = connection()

    def close(self) -> None:
        self._door.close()

    def start(
        self,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        execute: bool = True,
        seconds: float = SECONDS,
        privileged: bool = True,
        package: Path | None = None,
        python: Path | None = None,
        given: str = "",
        streams: Sequence[int] = (),
    ) -> Command:
        """Start a command line in ``folder``.

        Args:
            environment: instead of this process's.
            execute: or only up to where the work would begin.
            seconds: after which it is killed.
            privileged: whether root, if we are root, may write where a folder's permissions do not let it.
            package: folder that holds another copy of the package, which is run then.
            python: by which it starts other processes (`forked_python`).
            given: on its standard input.
            streams: the three that it has; what it says on them is not kept.

        Arguments that begin with ``-c`` or ``-m`` are Python's, and not the command's.
        """
        variables = {**(os.environ if environment is None else environment), **QUIET}
        variables.pop(SERVICE, None)
        request = {"arguments": arguments, "folder": str(folder), "environment": variables}
        ours, its = socket.socketpair()
        with its, ExitStack() as undone:
            undone.callback(ours.close)  # where the server, or its start, has failed
            socket.send_fds(self._door, [b"."], [its.fileno(), *streams])
            how = {"execute": execute, "seconds": seconds, "privileged": privileged, "given": given}
            how |= {name: path and str(path) for name, path in (("package", package), ("python", python))}
            started = Command(ours, request | how)
            undone.pop_all()
        return started

    def run(self, *arguments: str, **options: object) -> Done:
        """Run a command line to its end; options as of `start`."""
        return self.start(*arguments, **options).end()


def script(path: Path | str, *arguments: object) -> list[str]:
    """Arguments of Python by which the server runs a script of the tests, which finds libraries and package loaded."""
    code = "import runpy, sys; sys.path.insert(0, sys.argv[1].rpartition('/')[0]); "
    code += "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    return ["-c", code, str(path), *map(str, arguments)]


@functools.cache
def commands() -> Commands:
    """This process's way to the server."""
    server = Commands()
    atexit.register(server.close)
    return server


@functools.cache
def forked_python() -> Path:
    """An executable that stands for Python where others start it: Slurm, torchrun, a script, a run its other ranks.

    What it is to run is forked from the server, with the streams and the environment that it has itself. It passes
    signals on, and ends as that ends; if it is killed, so is what it runs.
    """
    folder = tempfile.TemporaryDirectory(prefix="dnc-python.")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "python"
    code = f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    code += f"os.environ.setdefault({SESSION!r}, {os.environ.get(SESSION, str(os.getpid()))!r}); "
    path.write_text(f"#!{sys.executable} -IS\n{code}import commands; commands.run_forked(sys.argv[1:])\n")
    path.chmod(0o755)
    return path


def run_forked(arguments: list[str]) -> None:
    """What `forked_python` does."""
    while arguments[0] in ("-u", "-P"):  # no matter to what is loaded
        arguments = arguments[1:]
    if arguments[0] not in ("-c", "-m"):
        arguments = script(*arguments)
    command = Commands().start(*arguments, folder=Path.cwd(), python=Path(sys.argv[0]), streams=(0, 1, 2))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda received, _: os.kill(command.pid, received))
    code = command.end().code
    if code is not None and code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(1 if code is None else code)


def dnc(*arguments: str, cwd: Path, check: bool = True, **options: object) -> subprocess.CompletedProcess:
    """Run the command in ``cwd``, with options as of `Commands.start`; ``check`` that it exits with 0."""
    done = commands().run(*arguments, folder=cwd, **options)
    assert not check or done.code == 0, done.err
    return subprocess.CompletedProcess(["dnc", *arguments], done.code, done.out, done.err)


def content(folder: Path) -> dict[str, tuple]:
    """Every path below a folder with its kind, and of a file the bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }

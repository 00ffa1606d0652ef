"""The command, loaded once and forked for every command line: a fresh process each time, but no seconds of imports.

Its standard input is a socket to which the processes of a test session connect; it ends when the last of them has
closed its connection. Over one it is passed others. Each of these carries one command line: it is sent the JSON line
``{arguments, folder, environment, seconds, execute, privileged, package, given}`` and answers with two, ``{pid}`` of
the process that runs `pipeline.__main__.main` in that folder with that environment and ``given`` as its standard input,
and when it has ended ``{code, out, err, ran}``. After that many seconds, or when the socket is closed before, the
process is killed, and ``code`` is null. With ``execute`` false the run stops where its work would begin; ``ran`` then
holds the values of every knob that passed the checks. With ``privileged`` false the permissions of files hold for root
too. With a folder as ``package`` the package there is run. With a path as ``python`` this is the Python by which the
process starts others. Arguments that begin as Python's do (``-c``, ``-m``) are Python's.

With the connection come three files, or none: those that come are the process's standard streams.
"""

import atexit
import ctypes
import faulthandler
import gc
import importlib
import json
import logging
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

LATE = ("scipy.linalg.blas", "timm", "torchvision.datasets", "pytorch_lightning", "torch.nn.parallel.distributed")
LATE += ("matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "mpl_toolkits.mplot3d")
LATE += ("wandb.sdk.launch", "requests", "hydra._internal.logging_config", "omegaconf._impl", "importlib.resources")
"""What libraries, or we, import when it is needed."""


def main() -> None:
    door = socket.socket(fileno=0)
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    clients = [door.accept()[0]]
    while clients:
        for one in select.select([door, *clients], [], [])[0]:
            if one is door:
                clients.append(door.accept()[0])
            elif descriptors := socket.recv_fds(one, 1, 4, socket.MSG_CMSG_CLOEXEC)[1]:
                _serve(*descriptors)
            else:
                clients.remove(one)
                one.close()


def _serve(descriptor: int, *streams: int) -> None:
    with socket.socket(fileno=descriptor) as visitor:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(visitor, streams)
            os._exit(0)
    _close(streams)


def _close(streams: Sequence[int]) -> None:
    for stream in streams:
        os.close(stream)


def _load() -> None:
    """Import what runs import, most of it late, and let Hydra find its plugins.

    Two shortcuts save half of the time: YAML is read by the same parser's C version, and Hydra does not compose the
    configuration twice, the first time only to look at ``hydra.mode``. What is found when a configuration is composed
    is found here, once.
    """
    import hydra._internal.hydra
    import hydra.core.plugins
    import yaml
    from hydra import compose, initialize_config_dir

    import pipeline
    from pipeline.config import conf_folder, settings
    from pipeline.config.messages import register
    from pipeline.networks import build_backbone

    heard = logging.NullHandler()  # or Lightning would speak for itself, as it does where nobody listens
    logging.root.addHandler(heard)
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if module.name == "pipeline.__main__" or not _is_a_program(module):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    logging.root.removeHandler(heard)
    importlib.import_module("PIL.Image").init()  # all formats
    yaml.SafeLoader = yaml.CSafeLoader
    hydra._internal.hydra.Hydra.get_mode = lambda *_, **__: None
    hydra.core.plugins.Plugins.instance()
    build_backbone("resnet20", (1, 8, 8))
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        settings(compose("main", ["head.width=8"]))  # which fills the caches of Hydra's parser and of our schema
    gc.collect()
    gc.freeze()  # or every child would walk through all of it, and copy it by doing so


def _is_a_program(module: pkgutil.ModuleInfo) -> bool:
    """Whether it is run with ``-m``, which Python does not want of a module that is loaded."""
    return '__name__ == "__main__"' in Path(module.module_finder.find_spec(module.name).origin).read_text()


def _answer(visitor: socket.socket, streams: Sequence[int]) -> None:
    request = json.loads(visitor.makefile().readline())
    files = {name: tempfile.TemporaryFile("w+", errors="replace") for name in ("out", "err", "ran")}  # noqa: SIM115
    child = os.fork()
    if child == 0:
        _child(request, streams, **files)
    _close(streams)
    _say(visitor, {"pid": child})
    answer = {"code": _wait(child, request["seconds"], visitor, tell=not streams)}
    for name, file in files.items():
        file.seek(0)
        answer[name] = file.read()
    _say(visitor, answer | {"ran": [json.loads(line) for line in answer["ran"].splitlines()]})


def _say(visitor: socket.socket, answer: dict) -> None:
    try:
        visitor.sendall(f"{json.dumps(answer)}\n".encode())
    except BrokenPipeError:
        os._exit(0)


def _wait(child: int, seconds: float, visitor: socket.socket, *, tell: bool) -> int | None:
    """The exit code of a child; None if it had to be killed, after it was to tell where it stood."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if select.select([visitor], [], [], 0.002)[0]:
            break  # nobody is there any more
    if tell:
        os.killpg(child, signal.SIGUSR1)  # its stack goes to its stderr
        time.sleep(0.2)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _child(request: dict, streams: Sequence[int], out: IO[str], err: IO[str], ran: IO[str]) -> None:
    """Run the command line; never returns."""
    os.setpgid(0, 0)
    atexit._clear()  # what is registered so far is the server's to do
    for number, stream in enumerate(streams or (_holding(request["given"]), out.fileno(), err.fileno())):
        os.dup2(stream, number)
    os.chdir(request["folder"])
    os.umask(0o022)
    os.environ.clear()
    os.environ.update(request["environment"])
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    sys.argv, sys.executable = ["dnc", *request["arguments"]], request["python"] or sys.executable
    code = 70
    try:
        if request["package"]:
            _use(request["package"])
        if request["arguments"][:1] in (["-c"], ["-m"]):
            _python(*request["arguments"])
            raise SystemExit
        if not request["execute"]:
            _stop_before_the_work(ran)
        if not request["privileged"]:
            _heed_permissions()
        from pipeline.__main__ import main

        main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _holding(text: str) -> int:
    """A file to read this from."""
    descriptor = os.memfd_create("given")
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(text)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _use(folder: str) -> None:
    """Forget our package for the one in a folder; libraries stay loaded."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pipeline"]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    sys.dont_write_bytecode = False  # the next process is then spared to compile it


def _python(option: str, what: str, *arguments: str) -> None:
    sys.argv = [option, *arguments]
    if option == "-m":
        for name in (what, f"{what}.__main__"):  # what is run is loaded anew; a package stays
            if not hasattr(sys.modules.get(name), "__path__"):
                sys.modules.pop(name, None)
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def _heed_permissions() -> None:
    """Give up CAP_DAC_OVERRIDE. A change of user would do less: another may not even read the installation."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the low 32 capabilities, then the high
    for call in (libc.capget, libc.capset):
        if call(header, sets):
            raise OSError(ctypes.get_errno(), call.__name__)
        for position in range(3):
            sets[position] &= ~(1 << 1)


def _stop_before_the_work(ran: IO[str]) -> None:
    import pipeline.runs.execution

    def note(config: object, inputs: object, folder: object) -> None:
        print(json.dumps(asdict(config)), file=ran, flush=True)

    pipeline.runs.execution.execute = note


if __name__ == "__main__":
    main()

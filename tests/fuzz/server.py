"""The command, loaded once and forked for every command line: a fresh process each time, but no seconds of imports.

Speaks JSON lines: reads ``{arguments, folder, seconds, execute}``, runs `pipeline.app.main` in a child in that folder,
kills it after that many seconds, and answers ``{code, out, err, ran}``. With ``execute`` false the run stops where its
work would begin; ``ran`` then holds the values of every knob that passed the checks. ``code`` is null if the child was
killed.
"""

import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the children print goes to files of theirs
    _load()
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_answer(request)), file=answers, flush=True)


def _load() -> None:
    """Import what a run imports, some of it late, and let Hydra find its plugins.

    Two shortcuts save half of the time: YAML is read by the same parser's C version, and Hydra does not compose the
    configuration twice, the first time only to look at ``hydra.mode``.
    """
    import hydra._internal.hydra
    import hydra.core.plugins
    import sklearn.datasets
    import yaml

    from pipeline.backbones import build_backbone

    for name in ("app", "execution", "stages", "tracking.tracker"):
        importlib.import_module(f"pipeline.{name}")
    for name in ("timm", "torchvision.datasets"):
        importlib.import_module(name)
    yaml.SafeLoader = yaml.CSafeLoader
    hydra._internal.hydra.Hydra.get_mode = lambda *_, **__: None
    hydra.core.plugins.Plugins.instance()
    sklearn.datasets.load_digits()
    build_backbone("resnet20", (1, 8, 8))
    gc.collect()
    gc.freeze()  # or every child would walk through all of it, and copy it by doing so


def _answer(request: dict) -> dict:
    with tempfile.TemporaryDirectory() as place:
        child = os.fork()
        if child == 0:
            _child(request, Path(place))
        if "pid_file" in request:
            Path(request["pid_file"]).write_text(f"{child}\n")
        code = _wait(child, request["seconds"])
        texts = {
            name: (Path(place) / name).read_text(errors="replace") if (Path(place) / name).exists() else ""
            for name in ("out", "err", "ran")
        }
    return {"code": code, **texts, "ran": [json.loads(ran) for ran in texts["ran"].splitlines()]}


def _wait(child: int, seconds: float) -> int | None:
    """The exit code of a child; None if it had to be killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(child, signal.SIGUSR1)  # its stack goes to its stderr
    time.sleep(0.2)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _child(request: dict, place: Path) -> None:
    """Run the command line; never returns."""
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["folder"])
    os.umask(0o022)
    for name, value in request.get("environment", {}).items():
        os.environ[name] = value
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    sys.argv = ["dnc", *request["arguments"]]
    code = 70
    try:
        if not request["execute"]:
            _stop_before_the_work(place)
        if request.get("user") is not None:
            os.setuid(request["user"])
        import pipeline.app

        pipeline.app.main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _stop_before_the_work(place: Path) -> None:
    import pipeline.execution

    def note(config: object, inputs: object, folder: Path) -> None:
        with open(place / "ran", "a") as stream:
            print(json.dumps(asdict(config)), file=stream)

    pipeline.execution.execute = note


if __name__ == "__main__":
    main()

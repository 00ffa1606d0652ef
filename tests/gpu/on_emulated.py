"""Run tests on emulated CUDA devices: ``on_emulated.py FOLDER PYTEST_ARGUMENTS``, for test_emulated.py.

First two ranks are forked from this process, each on a device of its own, which leave their run in ``FOLDER/ranks``:
so everything is imported once.
"""

import os
import socket
import sys
import traceback
from pathlib import Path

import torch

import emulated_cuda  # isort: skip

emulated_cuda.install()

import pytest  # noqa: E402

RUN = ["logger=none", "record.figures=false", "trainer.threads=1", "data.samples_per_class=10", "data.classes=[0,1]"]
RUN += ["backbone.epochs=1", "backbone.batch_size=10", "descent.steps=10", "descent.records_per_decade=1"]
RUN += ["descent.seeds=2", "head.depth=2", "head.width=8", "-q"]
NORMED = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, rate: float = 0.0):
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()]
        super().__init__(*layers, nn.Dropout(rate), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Dropping(Net):
    def __init__(self):
        super().__init__(0.5)
"""
"""A network with what ranks and resumed runs have to agree on."""
OF_RANKS = ["backbone=custom", "backbone._target_=normed.Net"]
"""What the ranks run."""


def command(folder: Path, *arguments: str) -> int:
    """Run the command in this process, where `NORMED` stands as ``normed.py``; its exit status."""
    from pipeline.cli.app import main

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "normed.py").write_text(NORMED)
    sys.argv = ["dnc", *RUN, f"hydra.run.dir={folder}/run", *arguments]
    os.chdir(folder)
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def fork(folder: Path, rank: int, port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    os.environ["TORCHELASTIC_RUN_ID"] = "ranks"
    code = 1
    try:
        with open(folder / f"{rank}.log", "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = command(folder, *OF_RANKS, "trainer.devices=2")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main(folder: Path, *arguments: str) -> int:
    torch.set_num_threads(1)
    import pipeline.runs.execution
    import pipeline.runs.training.training  # noqa: F401

    shared = folder / "ranks"
    shared.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Before anything is differentiated here: autograd's threads do not survive a fork.
    codes = [os.waitpid(child, 0)[1] for child in [fork(shared, rank, port) for rank in range(2)]]
    os.environ["EMULATED_RANKS"] = str(shared)
    if any(codes):
        print(f"the ranks ended with {codes}", *((shared / f"{rank}.log").read_text() for rank in range(2)), sep="\n")
    return pytest.main(list(arguments))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))

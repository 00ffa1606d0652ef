"""The processes of one run: who started them, and how they find each other.

Three ways lead to several processes: ``torchrun``, ``srun`` (also under Hydra's submitit launcher), and the command by
itself, which then starts the others on this machine. Started from outside, every process composes the configuration
itself; started here, a process gets the composed one over its standard input, so that Hydra runs once and neither
folders nor jobs of a multirun are made twice.
"""

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch

from pipeline.config import Config, from_plain
from pipeline.runs.launches import FOLLOWER, VARIABLES, RankAssignment, forget_leftovers, launched_rank
from pipeline.runs.watching import watched
from pipeline.runtime import ranks
from pipeline.runtime.children import module_command
from pipeline.runtime.errors import ConfigError, RunError

log = logging.getLogger(__name__)

SECONDS_TO_LEAVE = 20.0
READY = "ready\n"
"""What a child prints when it has all it needs and is about to join the group."""
PROCESSES_PER_CORE = 4
"""With more, processes only wait for one another."""


def check(config: Config) -> None:
    """Whether the configuration asks for the processes there are.

    Raises:
        ConfigError: it does not, or several machines are asked for and nobody started processes on them.
    """
    trainer, assigned = config.trainer, launched_rank()
    forget_leftovers()
    asked = trainer.devices * trainer.num_nodes
    named = f"trainer.devices={trainer.devices} and trainer.num_nodes={trainer.num_nodes}"
    if assigned is not None and assigned.world_size != asked:
        raise ConfigError(
            f"{named} make {asked} process(es), but {assigned.launcher} started {assigned.world_size}; allowed: "
            "settings and a launch that agree."
        )
    if assigned is None and trainer.num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={trainer.num_nodes} needs a launcher that reaches other machines; allowed: 1, or srun, "
            "torchrun, or hydra/launcher=slurm."
        )
    cores = os.cpu_count() or 1
    most = PROCESSES_PER_CORE * cores
    if assigned is None and config.device.type == "cpu" and asked > most:
        raise ConfigError(f"trainer.devices={asked}, but this machine has {cores} CPU cores; allowed: 1..{most}.")
    gpus = torch.cuda.device_count()
    one_each = gpus == 1 and assigned is not None and assigned.launcher != "dnc"
    if config.device.type == "cuda" and trainer.devices > gpus and not one_each:
        raise ConfigError(f"trainer.devices={trainer.devices}, but there are {gpus} CUDA devices; allowed: 1..{gpus}.")


def own_gpu() -> int:
    """The number of this process's GPU among those that it sees: its local rank, or 0 where its launcher shows each
    process one of its own, as `srun --gpus-per-task=1` does."""
    return 0 if torch.cuda.device_count() == 1 else int(os.environ["LOCAL_RANK"])


@contextmanager
def processes(config: Config, folder: Path) -> Iterator[Path]:
    """Bring the run's processes together; yields the first process's run folder on all of them.

    Raises:
        RunError: another process of the run ended, which shows when this one next communicates with it.
    """
    if config.trainer.devices * config.trainer.num_nodes == 1:
        yield folder
        return
    assigned = launched_rank()
    if assigned is None:
        with _started_here(config, folder):
            yield ranks.broadcast(folder)
        return
    if assigned.launcher == "srun":
        os.environ.update(assigned.variables(*_slurm_address()))
    elif assigned.launcher == "dnc":
        _announce_ready()
    with _group(config), _lost_rank_explained():
        yield ranks.broadcast(folder)


@contextmanager
def _started_here(config: Config, folder: Path) -> Iterator[None]:
    """This process is the first; the others are its children, and end when it does."""
    count, before = config.trainer.devices, {name: os.environ.get(name) for name in VARIABLES}
    port = _free_port()
    order = json.dumps({"config": asdict(config), "folder": str(folder.absolute())}) + "\n"
    children = []
    for index in range(1, count):
        variables = RankAssignment(index, index, 0, count, "dnc").variables("127.0.0.1", port)
        command = module_command("pipeline.cli.follower")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        child = subprocess.Popen(command, env=os.environ | variables | {FOLLOWER: "1"}, **pipes)
        children.append(child)
        with suppress(BrokenPipeError):  # the child is dead already, which its missing answer will tell
            child.stdin.write(order)
            child.stdin.flush()  # and stays open: its end tells the child that this process is gone
    os.environ.update(RankAssignment(0, 0, 0, count, "dnc").variables("127.0.0.1", port))
    try:
        for rank, child in enumerate(children, start=1):
            # Whoever waits for a dead process to join waits long.
            if child.stdout.readline() != READY:
                raise RunError(f"process {rank} of the run ended before it joined the others; its last words say why.")
        with _group(config), _lost_rank_explained(), watched(children):
            yield
    except BaseException:
        for child in children:
            with suppress(BrokenPipeError):
                child.stdin.close()
        raise
    finally:
        _wait_for_children(children)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _wait_for_children(children: list[subprocess.Popen]) -> None:
    """Wait for the children to end; kill those that do not."""
    for child in children:
        try:
            child.wait(SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
        if not child.stdin.closed:
            with suppress(BrokenPipeError):
                child.stdin.close()


@contextmanager
def _group(config: Config) -> Iterator[None]:
    on_gpu = config.device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(own_gpu())
    elif config.trainer.threads is None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.trainer.devices))
    if not ranks.connected():  # a multirun under torchrun keeps the group it has
        try:
            ranks.connect("nccl" if on_gpu else "gloo")
            if on_gpu:
                atexit.register(ranks.disconnect)  # NCCL wants to be left, also where jobs of a multirun share a group
        except (torch.distributed.DistNetworkError, torch.distributed.DistStoreError) as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise RunError(
                f"rank {os.environ['RANK']} could not meet the others at {where}; "
                "another MASTER_PORT or MASTER_ADDR in the environment helps."
            ) from error
    try:
        yield
    finally:
        assigned = launched_rank()
        if assigned is None or assigned.launcher == "dnc":
            ranks.disconnect()


@contextmanager
def _lost_rank_explained() -> Iterator[None]:
    """Within, a broken connection, which is all that a rank sees of another's end, is explained.

    Raises:
        RunError: instead of gloo's RuntimeError.
    """
    try:
        yield
    except RuntimeError as error:
        signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "Broken pipe")
        if isinstance(error, RunError) or not any(sign in str(error) for sign in signs):
            raise
        if "Duplicate GPU" in str(error):
            raise RunError(
                f"rank {ranks.rank()} shares its GPU with another rank of the run, which NCCL refuses; allowed: "
                "as many GPUs as processes, each visible to its own or all to all."
            ) from error
        raise RunError(f"rank {ranks.rank()} lost another process of the run, whose own last words say why.") from error


def _announce_ready() -> None:
    """In a child: say that it joins now; what it prints from here on goes to standard error, as nobody reads on."""
    print(READY, end="", flush=True)
    os.dup2(2, 1)


def _slurm_address() -> tuple[str, int]:
    from lightning_fabric.plugins.environments import SLURMEnvironment

    environment = SLURMEnvironment(auto_requeue=False)
    return environment.main_address, environment.main_port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_order() -> tuple[Config, Path]:
    """In a child: the configuration and the run folder, from standard input; the child ends when its parent does."""
    order = json.loads(sys.stdin.readline())

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()
    return from_plain(order["config"]), Path(order["folder"])

"""Who started this process: torchrun, srun, another process of the run, or nobody; and the rank that it got.

All of it is read from the environment, without PyTorch: also before the processes of a run have met.
"""

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables in which PyTorch and Lightning look for a process's rank."""
ELSEWHERE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Those in which libraries look for the rank of a process that stands alone: 0, or nothing."""
FOLLOWER = "DNC_FOLLOWER"
"""Environment variable, set for a process that another one of the run has started."""


@dataclass(frozen=True)
class RankAssignment:
    """The rank of a process: among all, on its machine, and of its machine; and who assigned it."""

    rank: int
    local_rank: int
    node_rank: int
    world_size: int
    launcher: str

    def variables(self, address: str, port: int) -> dict[str, str]:
        """The environment variables that tell PyTorch and Lightning."""
        values = (self.rank, self.local_rank, self.world_size, self.node_rank, address, port)
        return dict(zip(VARIABLES, map(str, values), strict=True))


def launched_rank(environment: Any = os.environ) -> RankAssignment | None:
    """The rank that torchrun, srun or another process of the run gave this process; None if nobody did.

    What is left over from another launch, and says too little or contradicts itself, counts for nothing.
    """
    return next((assigned for _, assigned in _launches(environment) if assigned is not None), None)


def forget_leftovers(environment: Any = os.environ) -> None:
    """Remove what another launch has left behind, and say so: libraries would take this process for one of several."""
    assigned = launched_rank(environment)
    names = {name for name, launch in _launches(environment) if launch is None}
    if assigned is None:
        names |= {name for name in ELSEWHERE if environment.get(name, "0") != "0"}
    if assigned is None or assigned.launcher != "torchrun":
        names |= {name for name in environment if name.startswith("TORCHELASTIC_")}
    if names:
        said = ", ".join(f"{name}={environment[name]}" for name in sorted(names))
        log.warning("ignored, as it says too little or belongs to another launch: %s", said)
    for name in names:
        del environment[name]


def _launches(environment: Any) -> Iterator[tuple[str, RankAssignment | None]]:
    """Variables that announce that somebody started this process, and the rank that it got, as far as one can tell."""
    ours = {FOLLOWER: ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "dnc")}
    torchrun = {"TORCHELASTIC_RUN_ID": ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "torchrun")}
    # Not SLURM_NTASKS: a batch script that starts one process has that too.
    srun = {"SLURM_STEP_NUM_TASKS": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NUM_TASKS", "srun")}
    for name, (*numbers, launcher) in (ours | torchrun | srun).items():
        if name in environment and not (launcher == "srun" and environment[name].strip() in ("0", "1")):
            yield name, _assignment([environment.get(number, "") for number in numbers], launcher)


def _assignment(numbers: list[str], launcher: str) -> RankAssignment | None:
    """What four texts say, None if they are no numbers, or no rank."""
    if not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", text) for text in numbers):
        return None
    rank, local_rank, node_rank, world_size = map(int, numbers)
    possible = rank < world_size and local_rank < world_size and node_rank < world_size
    return RankAssignment(rank, local_rank, node_rank, world_size, launcher) if possible else None


def is_first() -> bool:
    """Whether this process writes, as far as its environment tells: also before the processes have met."""
    assigned = launched_rank()
    return assigned is None or assigned.rank == 0

"""Protocols: each composes stages into one experiment and returns its `Outcome`.

The file is the registration: ``protocols/<name>.py`` holds one function under `protocol`, and
``conf/protocol/<name>.yaml`` its settings. Nothing else names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.runtime.discovery import names_in
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.suggestions import did_you_mean

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.runs.inputs import Inputs
    from pipeline.runs.outcome import Outcome
    from pipeline.runs.run import Run

HEADS = ("descent", "joint", None)
LAYERS = ("named", "numbered")


@dataclass(frozen=True)
class Stage:
    """A stage of a protocol, under the name that its rows have in the record.

    title: in figures and tables.
    unit: what its steps count.
    layers: "named" as the parts of a network are, or "numbered" 1 .. L as those of a head.
    intermediate: the run needs its result only on the way to another one; overviews leave it out.
    """

    title: str
    unit: str = "epoch"
    layers: str = "named"
    intermediate: bool = False

    def __post_init__(self) -> None:
        if self.layers not in LAYERS:
            raise ValueError(f"layers={self.layers!r} is not known; allowed: {', '.join(LAYERS)}")


@dataclass(frozen=True)
class Protocol:
    """A registered protocol; see `protocol` for its attributes."""

    name: str
    perform: "Callable[[Run], Outcome]"
    images: bool = False
    network: bool = False
    head: str | None = None
    states: bool = False
    regresses: bool = False
    stages: Mapping[str, Stage] = field(default_factory=dict)
    check: "Callable[[Config], None] | None" = None
    check_inputs: "Callable[[Config, Inputs], None] | None" = None

    @property
    def uses(self) -> dict[str, Any]:
        """What a run uses, as its summary says it."""
        return {"images": self.images, "network": self.network, "head": self.head}

    def described_stages(self, recorded: set[str]) -> dict[str, dict[str, Any]]:
        """The stages that have rows, in the protocol's order and as the summary describes them; one it does not
        declare comes last."""
        undeclared = {name: Stage(name.capitalize(), unit="step") for name in sorted(recorded - self.stages.keys())}
        return {name: asdict(stage) for name, stage in (self.stages | undeclared).items() if name in recorded}


def protocol(
    *,
    images: bool = False,
    network: bool = False,
    head: str | None = None,
    states: bool = False,
    regresses: bool = False,
    stages: Mapping[str, Stage] | None = None,
    check: "Callable[[Config], None] | None" = None,
    check_inputs: "Callable[[Config, Inputs], None] | None" = None,
) -> "Callable[[Callable[[Run], Outcome]], Protocol]":
    """Register the function below, ``run -> Outcome``, as the protocol of its file's name.

    Args:
        images: whether the run loads a data set; otherwise ``run.inputs.images`` is None.
        network: whether it builds a backbone, which takes images; otherwise ``run.inputs.backbone`` is None.
        head: "descent" if a head is solved by gradient descent, with ``descent.seeds`` members; "joint" if one head is
            trained with or under the network; None if there is none.
        states: whether it takes several states of the network in a row (``backbone.checkpoints``).
        regresses: whether outputs may be fitted to numbers of images (``protocol.targets``).
        stages: what the record's stages are, by name, in the order of data flow.
        check: raises `ConfigError` for settings that this protocol cannot use.
        check_inputs: the same once the images are loaded and the network is built.

    Raises:
        ValueError: a network without images, or an unknown kind of head.
    """
    if network and not images:
        raise ValueError("network=True needs images=True: the network is built for their shape")
    if head not in HEADS:
        raise ValueError(f"head={head!r} is not known; allowed: {', '.join(map(repr, HEADS))}")

    def register(perform: "Callable[[Run], Outcome]") -> Protocol:
        name = perform.__module__.rpartition(".")[2]
        kinds = (images, network, head, states, regresses)
        return Protocol(name, perform, *kinds, dict(stages or {}), check, check_inputs)

    return register


def protocol_names() -> tuple[str, ...]:
    """The names of all protocols, in alphabetical order; no protocol is imported."""
    return names_in(__name__)


def protocol_named(name: str) -> Protocol:
    """The protocol of ``protocols/<name>.py``; no other one is imported.

    Raises:
        ConfigError: there is none.
    """
    known = protocol_names()
    if name not in known:
        raise ConfigError(f"protocol.name={name} is not known; allowed: {', '.join(known)}{did_you_mean(name, known)}.")
    module = import_module(f"{__name__}.{name}")
    found = [value for value in vars(module).values() if isinstance(value, Protocol) and value.name == name]
    if len(found) != 1:
        raise TypeError(f"{module.__file__} holds {len(found)} functions under @protocol; allowed: one")
    return found[0]


def perform(run: "Run") -> "Outcome":
    """Perform the protocol that the configuration names."""
    if run.protocol.network:
        import_module("pipeline.runs.training.training")  # Lightning takes seconds, which are no stage's
    return run.protocol.perform(run)

"""The section ``backbone`` of the configuration, as far as it says which network: what each architecture owns."""

from dataclasses import dataclass, fields
from typing import Any

from omegaconf import MISSING

from pipeline.runtime.discovery import names_in
from pipeline.runtime.sections import composed, owners_of
from pipeline.runtime.settings import knob
from pipeline.runtime.sources import own_settings_of

ARCHITECTURES = "pipeline.networks.architectures"
"""The folder of the backbones."""
POOLINGS = ("average", "flatten")


def known_backbones() -> tuple[str, ...]:
    """Names of all backbones; none of them is imported."""
    return names_in(ARCHITECTURES)


@dataclass
class SharedSettings:
    """The network whose features are measured and frozen."""

    name: str = knob(MISSING, "architecture", choices=known_backbones)

    @property
    def request(self) -> dict[str, Any]:
        """What `pipeline.networks` is asked for beside the name, every architecture's own settings: it may object."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if owners_of(entry)}


NetworkConfig = composed(
    "NetworkConfig", SharedSettings, own_settings_of(ARCHITECTURES, "architecture"), section="backbone", module=__name__
)

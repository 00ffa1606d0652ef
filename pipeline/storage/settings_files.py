"""What Hydra keeps in a run folder: the configuration, its own settings, and the overrides that were given.

All are None where there is no such file, and are checked by `pipeline.storage.reading`; nothing in them is resolved.
"""

from pathlib import Path
from typing import Any

from pipeline.storage.reading import yaml_of
from pipeline.storage.shapes import NULL

CONFIG, HYDRA, OVERRIDES = (Path(".hydra", name) for name in ("config.yaml", "hydra.yaml", "overrides.yaml"))

_SECTIONS = ("data", "backbone", "optimizer", "head", "descent", "protocol", "trainer", "logger", "verdict", "record")
CONFIG_SHAPE = {f"{name}?": ({}, NULL) for name in _SECTIONS}
OVERRIDES_SHAPE = [str]
_SOURCE = {"path": str, "provider": str}
_RUNTIME = {"cwd?": (str, NULL), "config_sources?": ([_SOURCE], NULL), "choices?": ({"experiment?": (str, NULL)}, NULL)}
_HYDRA = {"runtime?": (_RUNTIME, NULL), "overrides?": ({"task?": ([str], NULL)}, NULL)}
HYDRA_SHAPE = {"hydra": _HYDRA | {"mode?": (str, NULL), "sweep?": ({"dir?": (str, NULL)}, NULL)}}


def kept_config(folder: Path) -> dict[str, Any] | None:
    """``.hydra/config.yaml``, nested.

    Raises:
        Unreadable: it cannot be used.
    """
    return _kept(folder / CONFIG, CONFIG_SHAPE)


def kept_hydra(folder: Path) -> dict[str, Any] | None:
    """The section ``hydra`` of ``.hydra/hydra.yaml``.

    Raises:
        Unreadable: it cannot be used.
    """
    found = _kept(folder / HYDRA, HYDRA_SHAPE)
    return None if found is None else found["hydra"]


def kept_overrides(folder: Path) -> list[str] | None:
    """``.hydra/overrides.yaml``.

    Raises:
        Unreadable: it cannot be used.
    """
    return _kept(folder / OVERRIDES, OVERRIDES_SHAPE)


def _kept(path: Path, shape: Any) -> Any:
    try:
        return yaml_of(path, shape)
    except FileNotFoundError:
        return None

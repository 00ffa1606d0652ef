"""Weights that another run has left in its folder."""

from pathlib import Path
from typing import Any

from pipeline.runs.protocols import protocol_named, protocol_names
from pipeline.storage.reading import Unreadable
from pipeline.storage.record import read_summary
from pipeline.storage.settings_files import kept_config

IN_RUN = Path("checkpoints", "backbone.safetensors")


def run_weights(folder: Path) -> Path:
    """The backbone's weights in the folder of a run of this pipeline.

    Raises:
        ValueError: in one sentence, if it is no such folder or its run has no trained backbone (yet).
    """
    key, allowed = f"backbone.from_run={folder}", "allowed: the folder of a run that trained a backbone"
    if not folder.exists():
        raise ValueError(f"{key} does not exist; {allowed}.")
    if not folder.is_dir():
        raise ValueError(f"{key} is not a folder; {allowed}.")
    if (folder / IN_RUN).is_file():
        return folder / IN_RUN
    signs = (".hydra/config.yaml", "summary.json", "checkpoints")
    if not any((folder / sign).exists() for sign in signs):
        jobs = ", it holds the jobs of a sweep" if (folder / "multirun.yaml").exists() else ""
        raise ValueError(f"{key} is not a run's folder (no {', no '.join(signs)}){jobs}; {allowed}.")
    summary = read_summary(folder) or {}
    protocol = str(summary.get("protocol") or _section(folder, "protocol").get("name"))
    if not _has_network(protocol, summary):
        raise ValueError(f"{key} is a run with protocol={protocol}, which has no backbone; {allowed}.")
    status = summary.get("status", "unknown")
    raise ValueError(f"{key} has no {IN_RUN.as_posix()}, and the run's status is {status}; {allowed}.")


def _has_network(protocol: str, summary: dict[str, Any]) -> bool:
    """Whether a run has a backbone: as its summary says, or (before version 2, which said it) its protocol now."""
    if "uses" in summary:
        return bool(summary["uses"]["network"])
    return protocol not in protocol_names() or protocol_named(protocol).network


def trained_as(folder: Path) -> dict[str, Any]:
    """The settings `backbone` of a run of this pipeline; empty if they cannot be read."""
    return _section(folder, "backbone")


def _section(folder: Path, name: str) -> dict[str, Any]:
    try:
        section = (kept_config(folder) or {}).get(name)
    except Unreadable:
        return {}
    return section if isinstance(section, dict) else {}

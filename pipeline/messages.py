"""What the command says about its configuration: errors as one sentence, and the ``--help`` page."""

from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from pipeline.config import COMPARE, Config, conf_folder, hint


def register() -> None:
    """Make the schema known to Hydra as ``schema`` and the help page as the resolver ``dnc_help``."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("dnc_help", lambda *, _root_: help_text(_root_), replace=True)


def explain(error: Exception) -> str:
    """One sentence for an error of Hydra or OmegaConf: the key, the value received, what is allowed."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None) or ""
    first_line = str(cause).strip().splitlines()[0].strip().rstrip(".")
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        parent, _, name = key.rpartition(".")
        known = [entry.name for entry in fields(_node(parent))] if _node(parent) else []
        if known:
            return f"{key} is not a known key; allowed in {parent or 'the config'}: {', '.join(known)}{hint(name, known)}."
    if isinstance(cause, ValidationError) and key:
        return f"{key}: {first_line[0].lower()}{first_line[1:]}; allowed: {_allowed(key)}."
    if isinstance(cause, MissingMandatoryValue) and key:
        return f"{key}=??? must be given; allowed: {_allowed(key)}."
    if isinstance(error, HydraException):
        return " ".join(line.strip() for line in str(error).strip().splitlines() if line.strip())
    return f"{key}: {first_line}." if key else f"{first_line}."


def _node(path: str) -> Any:
    node: Any = Config()
    for name in filter(None, path.split(".")):
        node = getattr(node, name, None)
    return node if is_dataclass(node) else None


def _allowed(key: str) -> str:
    parent, _, name = key.partition("[")[0].rpartition(".")
    for entry in fields(_node(parent)) if _node(parent) else ():
        if entry.name == name:
            choices = entry.metadata.get("choices")
            if choices:
                return ", ".join(choices() if callable(choices) else choices)
            kind = getattr(entry.type, "__name__", str(entry.type))
            bounds = {limit: bound for limit, bound in entry.metadata.items() if limit in COMPARE}
            return f"{kind}" + "".join(f" {COMPARE[limit][1]} {bound:g}" for limit, bound in bounds.items())
    return "see --help"


def help_text(root: DictConfig) -> str:
    """The ``--help`` page: every knob with its current default, grouped as in ``conf/``."""
    folder = conf_folder()
    lines = [
        "Measure deep neural collapse, layer by layer.",
        "",
        "usage: dnc [key=value ...] [group=choice ...] [--multirun key=a,b,c] [--cfg job] [--config-dir DIR]",
        "",
        "Without arguments: train an MLP on two classes of scikit-learn's digits, freeze it, train a DUFM head on",
        "its features, say where collapse emerged, and leave a record, a figure and an (offline) wandb run.",
        "",
        "Choices (group=choice):",
    ]
    for group in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "hydra"):
        lines.append(f"  {group.name:<12}" + ", ".join(sorted(file.stem for file in group.glob("*.yaml"))))
    lines += ["", "Settings (key=value), with the defaults of the present choice:"]
    schema = Config()
    for entry in fields(schema):
        node = getattr(schema, entry.name)
        if is_dataclass(node):
            lines += ["", f"  {entry.name}: {type(node).__doc__}"]
            lines += [_help_line(f"{entry.name}.{knob.name}", knob.metadata, root) for knob in fields(node)]
        else:
            lines += ["", _help_line(entry.name, entry.metadata, root)]
    lines += [
        "",
        "  hydra.run.dir             the run's folder (default: outputs/<date>/<time>-<protocol>)",
        "",
        "Exit codes: 0 done, 1 the run failed, 2 bad configuration (nothing was written), 130 interrupted.",
    ]
    return "\n".join(lines).replace("$", "$$")


def _help_line(key: str, metadata: Any, root: DictConfig) -> str:
    value = OmegaConf.select(root, key)
    shown = "null" if value is None else str(value)
    choices = metadata.get("choices")
    names = f" ({', '.join(choices() if callable(choices) else choices)})" if choices else ""
    return f"    {key:<30}{shown:<18} {metadata['help']}{names}"

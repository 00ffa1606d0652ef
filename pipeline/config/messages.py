"""What the command says about its configuration: errors as one sentence, and the ``--help`` page."""

import re
from dataclasses import Field, fields, is_dataclass
from textwrap import wrap
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from pipeline.config import Config, allowed, choices_of, conf_folder
from pipeline.config.check import schema_node
from pipeline.config.environment import environment_variable
from pipeline.config.folder import groups_of_choices
from pipeline.config.overrides import knob_of, unreadable
from pipeline.config.own_files import misnamed, own_files, shown, watch
from pipeline.config.own_settings import explained, place_of, said_in_defaults
from pipeline.metrics.registry.family import metric_names
from pipeline.runtime.command_line import own_command
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.suggestions import did_you_mean
from pipeline.runtime.text import printable


def register() -> None:
    """Make the schema known to Hydra as ``schema`` and the help page as the resolver ``dnc_help``; limit ``oc.env``.

    Hydra then also reads files of the user's own through `pipeline.config.own_files`.
    """
    watch()
    ConfigStore.instance().store(name="schema", node=schema_node())
    OmegaConf.register_new_resolver("oc.env", environment_variable, replace=True)
    OmegaConf.register_new_resolver("dnc_help", lambda *, _root_: help_text(_root_), replace=True)


LONGEST = 2000
"""Characters of an error; of one that is longer (a key or a value is) the middle is left out."""


WRAPPED = "ConfigError raised while resolving interpolation: "
"""How OmegaConf reports an error of ours."""


def one_line(text: str) -> str:
    """The text, cut to a readable length, with everything that would break or disguise a line spelled out (``\\n``)."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return printable(text)


def explain(error: Exception) -> str:
    """One sentence for an error of ours, Hydra's or OmegaConf's: the key, the value received, what is allowed; and the
    file and the line, where one of the user's own (``--config-dir``) says it.
    """
    library = isinstance(error, HydraException | OmegaConfBaseException) or type(error) is ValueError
    if library and own_files() and (sentence := explained(str(error))):
        return sentence
    sentence = _explained(error)
    place = place_of(sentence) if own_files() else None
    return f"{place}: {sentence}" if place else sentence


def _explained(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None) or ""
    parent, _, name = key.partition("[")[0].rpartition(".")
    knobs = {entry.name: entry for entry in fields(_node(parent))} if _node(parent) else {}
    if isinstance(error, MissingConfigException) and str(error.missing_cfg_file).startswith("hydra/launcher/submitit_"):
        return "hydra/launcher: slurm needs the extra `slurm`, which is not installed: pip install '.[slurm]'."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        hint = did_you_mean(choice, error.options)
        if wrong := misnamed(str(error.missing_cfg_file)):
            hint = f", or the name {wrong.stem}.yaml for {shown(wrong)}"
        place = said_in_defaults(group, choice)
        said = f"{place}: " if place else ""
        return f"{said}{group}={choice} is not known; allowed: {', '.join(error.options)}{hint}."
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and knobs:
        hint = did_you_mean(name, knobs)
        return f"{key} is not a known key; allowed in {parent or 'the config'}: {', '.join(knobs)}{hint}."
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and (keys := _keys_of(parent)):
        return f"{key} is not a known key; allowed in {parent}: {', '.join(keys)}{did_you_mean(name, keys)}."
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and "." in parent:
        return f"{key} is not there yet; allowed: +{key}=VALUE, which adds it, or {parent}={{{name}: VALUE}}."
    lines = [line.strip() for line in str(cause).strip().splitlines() if line.strip()]
    first = lines[0].rstrip(".").removeprefix(WRAPPED) if lines else type(error).__name__
    if isinstance(cause, ValidationError) and name in knobs:
        return f"{key}: {first[0].lower()}{first[1:]}; allowed: {allowed(knobs[name])}."
    if unknown := re.match(r"Could not override '([^'@]+)[^']*'\. No match", first):
        groups = groups_of_choices()
        hint = did_you_mean(unknown[1], groups)
        return f"{unknown[1]} is not a known choice; allowed: {', '.join(f'{name}=...' for name in groups)}{hint}."
    if isinstance(error, OverrideParseException):
        return unreadable(error.override, first)
    return f"{key}: {first}." if key else f"{first}."


def _keys_of(setting: str) -> tuple[str, ...]:
    """The keys of a setting that is a mapping of known ones."""
    entry = knob_of(setting)
    return entry.metadata.get("keys", ()) if entry else ()


def _node(path: str) -> Any:
    node: Any = Config()
    for name in filter(None, path.split(".")):
        node = getattr(node, name, None)
    return node if is_dataclass(node) else None


def help_text(root: DictConfig) -> str:
    """The ``--help`` page: every knob with its current default, grouped as in ``conf/``."""
    folder, command = conf_folder(), own_command()
    lines = [
        "Measure deep neural collapse, layer by layer.",
        "",
        f"usage: {command} [key=value ...] [group=choice ...] [--multirun key=a,b,c] [--config-dir DIR] [-q | -v]",
        f"       {command} resume=FOLDER [key=value ...]          go on with a run that was interrupted or failed",
        f"       {command} report FOLDER ...                      one HTML file about runs",
        f"       {command} compare A B                            in what two runs differ",
        f"       {command} list [FOLDER ...]                      the runs on this machine",
        f"       {command} sweep FOLDER                           the runs of a sweep: table, csv, heat maps",
        f"       {command} figure FOLDER ... [--paper]            the figures of runs again, also for print",
        "",
        "Without arguments: train an MLP on two classes of scikit-learn's digits, freeze it, train a DUFM head on",
        "its features, say where collapse emerged, and leave a record, a figure and an (offline) wandb run.",
        "",
        "Flags:",
        "  -q, --quiet       show warnings, errors, and the verdict in one line; the log file keeps the rest",
        "  -v, --verbose     show what the libraries say, too, and where an error came from",
        "  -m, --multirun    one run for each combination of values separated by commas",
        "  --cfg job         print the configuration that these arguments make, checked, and stop",
        "  --config-dir DIR  look for configuration files there, too",
        '  -sc install=bash  completion: eval "$(dnc -sc install=bash)"',
        "  --version, --help (this page, with the arguments' values), --hydra-help (all of Hydra's flags)",
        "",
        "Choices (group=choice):",
    ]
    for group in groups_of_choices():
        lines.append(f"  {group:<12}" + ", ".join(sorted(file.stem for file in (folder / group).glob("*.yaml"))))
    lines += ["", "Settings (key=value), with the defaults of the present choice:"]
    schema = Config()
    for entry in fields(schema):
        node = getattr(schema, entry.name)
        if is_dataclass(node):
            lines += ["", f"  {entry.name}: {type(node).__doc__}"]
            lines += [_help_line(f"{entry.name}.{knob.name}", knob, root) for knob in fields(node)]
        else:
            lines += ["", _help_line(entry.name, entry, root)]
    lines += [
        "",
        "  hydra.run.dir             the run's folder (default: outputs/<date>/<time>-<protocol>)",
        "",
        "Families of metrics (measure.families=[core,...]; python -m pipeline.metrics says what each metric is):",
        *(
            line
            for family, names in metric_names().items()
            for line in wrap(f"{family:<12} {', '.join(names)}", 118, initial_indent="  ", subsequent_indent=" " * 15)
        ),
        "",
        "Exit codes: 0 done, 1 the run failed, 2 bad configuration (nothing was written), 130 interrupted,",
        "143 terminated (128 + the signal's number).",
        "",
        "More: docs/recipes.md (a command for each kind of run), docs/run_folder.md (what a run leaves, the verdict),",
        "docs/cli.md (this command), docs/README.md (all pages).",
    ]
    return "\n".join(lines).replace("$", "$$")


def _help_line(key: str, entry: Field, root: DictConfig) -> str:
    value = OmegaConf.select(root, key)
    shown = "null" if value is None else str(value)
    names = f" ({', '.join(choices_of(entry))})" if choices_of(entry) else ""
    return f"    {key:<30}{shown:<18} {entry.metadata['help']}{names}"

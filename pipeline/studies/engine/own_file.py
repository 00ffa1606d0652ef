"""A study of the user's own in a YAML file: read, and checked as far as it can be without a configuration.

    experiment: e3_mnist49_mlp            # conf/experiment/: where all runs begin; none: conf/main.yaml
    settings: {backbone.epochs: 1}        # the same in all runs
    axes:                                 # all combinations; any setting, or any group of choices
      protocol: [end_to_end, fixed_head]
      seed: [0, 1, 2]
    figures: [last_layer]                 # which; without it, all
    tables: [runs]
    expect: {dnc1: 0.01}                  # at most, in the last layer of every run

With ``study: e3`` (and ``version: cpu``) instead of ``experiment`` it is a variation of that study.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from omegaconf._utils import get_yaml_loader

from pipeline.config import Config, conf_folder
from pipeline.config.folder import groups_of_choices
from pipeline.config.overrides import knob_of, known_settings, quoted
from pipeline.config.own_files import OwnFile, entries, read_strictly
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.suggestions import did_you_mean

KEYS = ("title", "experiment", "study", "version", "settings", "axes", "figures", "tables", "expect")
ENDINGS = (".yaml", ".yml")
NETWORK = "backbone._target_"
TRUSTED = (NETWORK, "trainer.callbacks")
"""Settings that name code; the command line takes them, too, and no others (`pipeline.cli.arguments`)."""
MOST_RUNS = 10_000
PLAIN_WORD = r"[A-Za-z_][\w./-]*"
NOT_WORDS = {"true", "false", "null", "nan", "inf"}
"""Texts that Hydra's grammar takes for something else."""


@dataclass
class Spec:
    """What a file asks for.

    Attributes:
        settings: key -> value, as an override writes it.
        axes: axis -> label of a value -> overrides; an axis is a setting, or a name for cases of several settings.
        lines: settings and axes -> where the file names them.
    """

    file: OwnFile
    name: str
    title: str = ""
    experiment: str | None = None
    study: str | None = None
    version: str = "full"
    settings: dict[str, str] = field(default_factory=dict)
    axes: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    figures: tuple[str, ...] | None = None
    tables: tuple[str, ...] | None = None
    expect: dict[str, float] = field(default_factory=dict)
    lines: dict[str, yaml.Node] = field(default_factory=dict)

    def refuse(self, node: yaml.Node | None, sentence: str) -> NoReturn:
        """Raise ConfigError with the file and the line before the sentence."""
        raise ConfigError(f"{self.file.place(node)}: {sentence}")


def is_own(name: str) -> bool:
    """Whether an argument names a file of the user's own rather than a study."""
    return name.endswith(ENDINGS) and "=" not in name


def read_spec(path: Path, allowed: Mapping[str, Sequence[str]]) -> Spec:
    """What the file asks for.

    Args:
        allowed: what ``figures``, ``tables``, ``study``, ``version`` and the keys of ``expect`` may be.

    Raises:
        ConfigError: one sentence with the file, the line or key, the value and what is allowed.
    """
    file = read_strictly(path)
    spec = Spec(file, path.stem)
    if not re.fullmatch(r"[A-Za-z]\w*(-\w+)*", spec.name):
        spec.refuse(None, f"'{spec.name}' is no name of a study; allowed: letters, digits, _ and - in the file's name.")
    if file.node is None or not isinstance(file.node, yaml.MappingNode):
        spec.refuse(file.node, f"no study is described; allowed: {', '.join(KEYS)}, each as key: value.")
    said = {str(key.value): (key, value) for key, value in file.node.value}
    for name, (key, _) in said.items():
        if name not in KEYS:
            spec.refuse(key, f"{name} is not a known key; allowed: {', '.join(KEYS)}{did_you_mean(name, KEYS)}.")
    spec.lines |= {name: said[name][0] for name in ("figures", "tables", "expect") if name in said}
    for name in ("title", "experiment", "study", "version"):
        if name in said:
            setattr(spec, name, _word(spec, name, said[name][1], allowed.get(name)))
    if "study" in said and "experiment" in said:
        spec.refuse(said["experiment"][0], "study and experiment are both given; allowed: one of them.")
    if "version" in said and "study" not in said:
        spec.refuse(said["version"][0], f"version={spec.version} is one of a study; allowed: with study: NAME.")
    if "settings" in said:
        spec.settings = _settings(spec, said["settings"][1], "settings")
    if "axes" in said:
        _read_axes(spec, said["axes"][1])
    for name in ("figures", "tables"):
        if name in said:
            setattr(spec, name, _names(spec, name, said[name][1], allowed[name]))
    if "expect" in said:
        spec.expect = dict(_bounds(spec, said["expect"][1], allowed["expect"]))
    return spec


def _word(spec: Spec, name: str, node: yaml.Node, allowed: Sequence[str] | None) -> str:
    value = _plain(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(value, str) or (allowed is not None and value not in allowed):
        told = "text" if allowed is None else ", ".join(allowed) + did_you_mean(value, allowed)
        spec.refuse(node, f"{name}={_shown(node)} is not known; allowed: {told}.")
    return value


def _names(spec: Spec, name: str, node: yaml.Node, allowed: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        spec.refuse(node, f"{name}={_shown(node)} is no list; allowed: a list of {', '.join(allowed)}.")
    return tuple(dict.fromkeys(_word(spec, name, item, allowed) for item in node.value))


def _bounds(spec: Spec, node: yaml.Node, allowed: Sequence[str]) -> Iterator[tuple[str, float]]:
    for key, value in _mapping(spec, node, "expect", "metric: largest value"):
        name, bound = str(key.value), _plain(value) if isinstance(value, yaml.ScalarNode) else None
        if name not in allowed:
            hint = did_you_mean(name, allowed)
            spec.refuse(key, f"expect: {name} is not a metric; allowed: {', '.join(allowed)}{hint}.")
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not abs(bound) < float("inf"):
            spec.refuse(value, f"expect: {name}={_shown(value)} is no number; allowed: a finite number.")
        yield name, float(bound)


def _mapping(spec: Spec, node: yaml.Node, name: str, what: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        spec.refuse(node, f"{name}={_shown(node)} is no mapping; allowed: {what}, a line each.")
    yield from entries(node)


def _settings(spec: Spec, node: yaml.Node, where: str, above: str = "") -> dict[str, str]:
    """Key -> value as an override writes it; a section of the configuration may stand above its keys."""
    found: dict[str, str] = {}
    for at, value in _mapping(spec, node, where, "setting: value"):
        key = _setting(spec, at, above)
        if is_section(key) and isinstance(value, yaml.MappingNode):
            inner = _settings(spec, value, f"{where}.{key}", f"{key}.")
        else:
            _check_key(spec, at, key)
            inner = {key: _override(spec, key, value)}
        if twice := sorted(found.keys() & inner.keys()):
            spec.refuse(at, f"{twice[0]} stands here a second time; allowed: once.")
        found |= inner
        spec.lines.setdefault(key, value)
    return found


def _setting(spec: Spec, at: yaml.Node, above: str = "") -> str:
    if not isinstance(at, yaml.ScalarNode):
        spec.refuse(at, "a list or mapping is no setting; allowed: one such as head.depth.")
    return f"{above}{at.value}"


def is_section(key: str) -> bool:
    """Whether a key is that of a section of the configuration (``head``)."""
    return is_dataclass(getattr(Config(), key, None)) if key.isidentifier() else False


def _check_key(spec: Spec, at: yaml.Node, key: str) -> None:
    if key.partition(".")[0] == "hydra" or key.startswith("hydra/"):
        spec.refuse(at, f"{key} is Hydra's and no setting of a run; allowed: on the command line, with --launcher.")
    if key not in TRUSTED and "_target_" in key.split("."):
        spec.refuse(at, f"{key} could run code of any kind; allowed: {NETWORK}, a network.")
    groups = groups_of_choices()
    if key not in groups and knob_of(key) is None:
        known = [*groups, *known_settings()]
        section = key.partition(".")[0]
        near = [name for name in known if name.startswith(f"{section}.")] or groups
        hint = did_you_mean(key, known)
        spec.refuse(at, f"{key} is not a known setting; allowed: {', '.join(near)}{hint}.")
    if key == "experiment" and (spec.study or spec.experiment):
        spec.refuse(at, "experiment is chosen above for all runs; allowed: here, without experiment and study there.")


def _read_axes(spec: Spec, node: yaml.Node) -> None:
    count = 1
    for at, value in _mapping(spec, node, "axes", "setting: [value, value]"):
        key = _setting(spec, at)
        if isinstance(value, yaml.MappingNode):
            chosen = _cases(spec, key, value)
        else:
            _check_key(spec, at, key)
            if not isinstance(value, yaml.SequenceNode):
                spec.refuse(value, f"axes: {key}={_shown(value)} is no list; allowed: [value, value], or named cases.")
            texts = {_override(spec, key, item): item for item in value.value}
            chosen = {text: (f"{key}={text}",) for text in texts}
            if key in spec.settings:
                spec.refuse(at, f"{key} is an axis and stands in settings, too; allowed: one of them.")
        if not chosen:
            spec.refuse(value, f"axes: {key} is empty; allowed: at least one value.")
        spec.axes[key] = chosen
        spec.lines[key] = value
        count *= len(chosen)
    if count > MOST_RUNS:
        spec.refuse(node, f"axes make {count} runs; allowed: at most {MOST_RUNS}.")


def _cases(spec: Spec, axis: str, node: yaml.MappingNode) -> dict[str, tuple[str, ...]]:
    """Label -> overrides, of an axis whose values are settings that go together."""
    cases = {}
    for at, value in entries(node):
        label = str(at.value)
        if not re.fullmatch(r"[\w.+-]+", label):
            spec.refuse(at, f"axes: {axis}: '{label}' is no name of a case; allowed: letters, digits and ._+-.")
        chosen = _settings(spec, value, f"axes: {axis}: {label}")
        cases[label] = tuple(f"{key}={text}" for key, text in chosen.items())
    return cases


def _plain(node: yaml.Node) -> Any:
    return get_yaml_loader()("").construct_document(node)


def _override(spec: Spec, key: str, node: yaml.Node) -> str:
    """A value as Hydra's grammar reads it.

    Raises:
        ConfigError: it is no text, number, list or mapping, or asks for code.
    """
    for inner in _nodes(node):
        if key not in TRUSTED and any(at.value == "_target_" for at, _ in entries(inner)):
            spec.refuse(inner, f"{key} with _target_ could run code of any kind; allowed: {NETWORK}, a network.")
    try:
        return _written(_plain(node))
    except TypeError as error:
        spec.refuse(node, f"{key}={_shown(node)} is {error}; allowed: text, numbers, lists and mappings.")


def _nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    yield node
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        yield from _nodes(item)
    for _, value in entries(node):
        yield from _nodes(value)


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        plain = re.fullmatch(PLAIN_WORD, value, re.ASCII) and value.lower() not in NOT_WORDS
        return value if plain else quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        pairs = (f"{re.sub('[^A-Za-z0-9_]', _escaped, str(key))}:{_written(inner)}" for key, inner in value.items())
        return f"{{{','.join(pairs)}}}"
    raise TypeError(f"of type {type(value).__name__}")


def _escaped(found: re.Match) -> str:
    return f"\\{found[0]}" if found[0] in "\\()[]{}:=, \t" else found[0]


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return node.value if len(node.value) <= 60 else f"{node.value[:57]}..."
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def experiments() -> list[str]:
    """What ``experiment`` may be."""
    return sorted(file.stem for file in (conf_folder() / "experiment").glob("*.yaml"))

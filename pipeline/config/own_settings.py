"""What is wrong in a configuration file of the user's own, with its line, against the schema."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any

import yaml
from hydra.conf import HydraConf
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.folder import conf_folder, groups_of_choices
from pipeline.config.own_files import OwnFile, entries, own_file, own_files
from pipeline.config.schema import Config
from pipeline.runtime.settings import allowed
from pipeline.runtime.suggestions import did_you_mean

GLOBAL = "_global_"
FIRST_LINE = f"a first line '# @package {GLOBAL}'"


def explained(message: str) -> str | None:
    """The sentence for an error of Hydra's that lies in a file of the user's own; None for others."""
    named = re.search(r"[Ii]n '([^']+)'", message)
    named_file = own_file(named[1]) if named else None
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    for file in [named_file] if named_file else own_files():
        for sentence in _faults(file):
            return sentence
    if named_file is None:
        return None
    key = re.search(r"full_key: (\S+)", message)
    node = line_of(named_file, key[1]) if key else named_file.node
    if key and (section := _schema_at(key[1].rpartition(".")[0])) is not None and is_dataclass(section):
        names = [entry.name for entry in fields(section)]
        if (name := key[1].rpartition(".")[2]) not in names:
            hint = did_you_mean(name, names)
            return f"{named_file.place(node)}: {key[1]} is not a known key; allowed: {', '.join(names)}{hint}."
    what = lines[1] if len(lines) > 1 else lines[0]
    return f"{named_file.place(node)}: {f'{key[1]}: ' if key else ''}{what.rstrip('.')}."


def place_of(sentence: str) -> str | None:
    """Where a file of the user's own says what a sentence that begins with ``head.depth=0`` complains of."""
    found = re.match(r"([\w.]+)(=|: |$)(.*)", sentence, re.DOTALL)
    if not found:
        return None
    key, sign, rest = found.groups()
    for file in own_files():
        node = line_of(file, key)
        if node is None:
            continue
        same = isinstance(node, yaml.ScalarNode) and _same(node.value, rest.partition(" ")[0], sign)
        if same or (sign == "=" and not isinstance(node, yaml.ScalarNode) and rest.startswith(("[", "{"))):
            return file.place(node)
    return None


def _same(written: str, told: str, sign: str) -> bool:
    if sign != "=":
        return "${" in written
    try:
        return written.strip() == told or float(written) == float(told)
    except ValueError:
        return written.split(" ")[0] == told


def line_of(file: OwnFile, key: str) -> yaml.Node | None:
    """The value that a file gives to ``head.depth``."""
    package = _package(file)
    prefix = "" if package == GLOBAL else f"{package}."
    node = file.node
    if not key.startswith(prefix):
        return None
    for name in key.removeprefix(prefix).split("."):
        node = next((value for at, value in entries(node) if at.value == name), None)
    return node


def _package(file: OwnFile) -> str:
    said = file.header.get("package")  # None without one
    group = file.group.replace("/", ".") or GLOBAL
    return group if said is None else said.replace("_group_", group)


def _faults(file: OwnFile) -> Iterator[str]:
    """Sentences about what is wrong in a file, in its order."""
    for word in file.header.keys() - {"package"}:
        hint = did_you_mean(word, ["package"])
        yield f"{file.place(None)}, line 1: @{word} is not known; allowed: # @package{hint}."
    yield from _faults_of_defaults(file)
    package = _package(file)
    section = _schema_at("" if package == GLOBAL else package)
    sections = [entry.name for entry in fields(Config) if is_dataclass(entry.type)]
    if section is None and file.header.get("package"):
        known = [GLOBAL, *sections]
        hint = did_you_mean(package, known)
        yield f"{file.place(None)}, line 1: package {package} is no section; allowed: {', '.join(known)}{hint}."
    elif section is None:
        hint = did_you_mean(package, sections)
        content = "" if any(entries(file.node)) else "is empty and "
        if file.node is not None and not isinstance(file.node, yaml.MappingNode):
            content = "holds no settings (key: value) and "
        yield (
            f"{file.place(None)} {content}has no '# @package', so its keys belong to {package}, which is no section; "
            f"allowed: {FIRST_LINE}, or the folder of a section: {', '.join(sections)}{hint}."
        )
    elif file.node is not None:
        yield from _faults_of_section(file, file.node, section, [] if package == GLOBAL else package.split("."))


def _faults_of_section(file: OwnFile, node: yaml.Node, section: Any, path: Sequence[str]) -> Iterator[str]:
    named, knobs = ".".join(path), {entry.name: entry for entry in fields(section)}
    top = not path
    names = [*knobs, *(["hydra"] if top else [])]
    known = f"in {named or 'the config'}: {', '.join(names)}"
    if not isinstance(node, yaml.MappingNode):
        yield _no_mapping(file, node, named, known)
        return
    for at, value in node.value:
        key = ".".join([*path, str(at.value)])
        if (at.value == "defaults" and node is file.node) or at.value == "<<":
            continue
        if at.value == "hydra" and top:
            continue  # Hydra's own section: its message says what is wrong
        if at.value not in knobs:
            yield _unknown_key(file, at, key, names, known, top)
        elif is_dataclass(inner := _schema_at(key)):
            yield from _faults_of_section(file, value, inner, [*path, at.value])
        elif sentence := _fault_of_value(key, value, knobs[at.value]):
            yield f"{file.place(at)}: {sentence}"


def _no_mapping(file: OwnFile, node: yaml.Node, named: str, known: str) -> str:
    if isinstance(node, yaml.ScalarNode):
        text = node.value.strip()
        if not text or text in ("null", "~"):
            return f"{file.place(node)}: {named or 'the file'} is empty; allowed {known}, or no {named or 'file'}."
        hint = ""
        if found := re.match(r"([\w.]+)[:=]\s*(.*)", text):
            hint = f" (did you mean {found[1]}: {found[2]}?)"
        return f"{file.place(node)}: '{text}' is no setting of {named or 'the config'}; allowed {known}{hint}."
    return f"{file.place(node)}: {named or 'the file'} is a list; allowed {known}, each as key: value."


def _unknown_key(file: OwnFile, at: yaml.Node, key: str, names: Sequence[str], known: str, top: bool) -> str:
    told = f"{file.place(at)}: {key} is not a known key; allowed {known}"
    first, _, rest = str(at.value).partition(".")
    if top and rest and _schema_at(first) is not None:
        return f"{told} (did you mean {rest}, indented below {first}: ?)."
    hint = did_you_mean(at.value, names)
    if not top and not hint and not file.header.get("package") and at.value in {entry.name for entry in fields(Config)}:
        hint = f", or {FIRST_LINE}, with which {at.value} is a section"
    return f"{told}{hint}."


def _fault_of_value(key: str, node: yaml.Node, entry: Field) -> str | None:
    """What is wrong with the type of a value; its range is looked at when everything is composed."""
    try:
        value = get_yaml_loader()("").construct_document(node)
        OmegaConf.update(OmegaConf.structured(Config), key, value, merge=False)
    except OmegaConfBaseException as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        return f"{key}: {reason[0].lower()}{reason[1:]}; allowed: {allowed(entry)}."
    return None


def _faults_of_defaults(file: OwnFile) -> Iterator[str]:
    """Of the defaults list: its form, and groups and choices that are not there."""
    found = next(((at, value) for at, value in entries(file.node) if at.value == "defaults"), None)
    if found is None:
        return
    at, node = found
    if not isinstance(node, yaml.SequenceNode):
        yield f"{file.place(at)}: defaults is no list; allowed: lines such as '- override /head: relu' below it."
        return
    groups = groups_of_choices()
    for item in node.value:
        for name, _ in entries(item):
            words = str(name.value).split()
            group = words[-1].partition("@")[0]
            if group.startswith("/") and group.strip("/") in _chosen_at_first() and group == words[0]:
                yield f"{file.place(name)}: {group} is chosen already; allowed: override {group}."
            if group.startswith("/") and not (conf_folder() / group.strip("/")).is_dir() and "override" in words:
                hint = did_you_mean(group.strip("/"), groups)
                yield (
                    f"{file.place(name)}: {name.value} names no group; allowed: "
                    f"{', '.join(f'override /{known}' for known in groups)}{hint}."
                )


def _chosen_at_first() -> set[str]:
    """The groups of which conf/main.yaml chooses."""
    chosen = yaml.safe_load((conf_folder() / "main.yaml").read_text())["defaults"]
    return {group for item in chosen if isinstance(item, dict) for group in item}


def said_in_defaults(group: str, choice: str) -> str | None:
    """Where a file of the user's own chooses ``group: choice``, or names ``choice`` beside itself."""
    for file in own_files():
        for at, node in entries(file.node):
            if at.value != "defaults" or not isinstance(node, yaml.SequenceNode):
                continue
            for item in node.value:
                pairs = [(name.value.split()[-1].partition("@")[0], value.value) for name, value in entries(item)]
                if (f"/{group}", choice) in pairs or (group, choice) in pairs or item.value == choice:
                    return file.place(item)
    return None


def _schema_at(key: str) -> Any:
    """A section of the schema, the value's type otherwise; None if there is nothing of that name."""
    node: Any = Config
    for name in filter(None, key.split(".")):
        node = HydraConf if node is Config and name == "hydra" else _inner(node, name)
    return node


def _inner(node: Any, name: str) -> Any:
    if not is_dataclass(node):
        return None
    return next((entry.type for entry in fields(node) if entry.name == name), None)

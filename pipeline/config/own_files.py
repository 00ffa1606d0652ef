"""Configuration files of the user's own (``--config-dir``): read strictly, and remembered with their lines.

Hydra reads them as well. What it would say of a file that is no YAML, or not in UTF-8, names neither file nor line, and
some of it (a byte-order mark) changes silently what the file means; so each is looked at here before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf._utils import get_yaml_loader

from pipeline.config.folder import conf_folder
from pipeline.runtime.errors import ConfigError

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
BOM = b"\xef\xbb\xbf"
PLAIN_TAG = "tag:yaml.org,2002:"
PLAIN = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value", "binary"}


@dataclass(frozen=True)
class OwnFile:
    """One of the user's files: where it lies, as what it was asked for (``head/mine``), its header and its content."""

    path: Path
    name: str
    header: dict[str, str | None]
    node: yaml.Node | None

    @property
    def group(self) -> str:
        """The folders it lies in, ``head`` of ``head/mine``; "" at the top."""
        return self.name.rpartition("/")[0]

    def place(self, node: yaml.Node | None) -> str:
        """``my/head/mine.yaml, line 3``."""
        return shown(self.path) if node is None else f"{shown(self.path)}, line {node.start_mark.line + 1}"


_read: dict[str, OwnFile] = {}
"""By name, those that were read; the latest composition's last."""
_folders: set[Path] = set()


class StrictFileConfigSource(FileConfigSource):
    """Hydra's, with a strict look at files that are not ours before it reads them."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            ConfigError: it is the user's and not readable as YAML in UTF-8; named with its line.
        """
        folder = Path(self.path).absolute()
        path = folder / self._normalize_file_name(config_path)
        if folder.resolve() == conf_folder() or not path.is_file():
            return super().load_config(config_path)
        name = config_path.removesuffix(".yaml").strip("/")
        _read.pop(name, None)
        text = _text(path)
        node = _parsed(path, text)
        _read[name] = OwnFile(path, name, _header(path, text), node)
        return super().load_config(config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file; where was looked is remembered."""
        if Path(self.path).resolve() != conf_folder():
            _folders.add(Path(self.path).absolute())
        return super().is_config(config_path)


# By this name Hydra knows it as its own where a submitted job, to which the registry travels, registers plugins.
StrictFileConfigSource.__name__ = FileConfigSource.__name__


def watch() -> None:
    """Have Hydra read files this way from now on; those of before are forgotten."""
    _read.clear()
    _folders.clear()
    Plugins.instance()  # registers Hydra's own first
    SourcesRegistry.instance().types["file"] = StrictFileConfigSource


def own_files() -> list[OwnFile]:
    """Those that were read, the last one first: it is the one that counts."""
    return list(reversed(_read.values()))


def own_file(name: str) -> OwnFile | None:
    """The file read as ``head/mine``."""
    return _read.get(name)


def misnamed(name: str) -> Path | None:
    """A file of the user's that would be ``head/mine`` if it ended in .yaml."""
    candidates = (folder / f"{name}.yml" for folder in sorted(_folders))
    return next((path for path in candidates if path.is_file()), None)


def shown(path: Path) -> str:
    """A path as seen from here, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def entries(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Keys and values of a mapping; nothing of anything else."""
    if isinstance(node, yaml.MappingNode):
        yield from node.value


def read_strictly(path: Path) -> OwnFile:
    """A file that is no configuration file of Hydra's, read as strictly.

    Raises:
        ConfigError: it is not there, or not readable as YAML in UTF-8; named with its line.
    """
    try:
        text = _text(path)
    except OSError as error:
        raise ConfigError(f"{shown(path)}: {error.strerror}; allowed: a YAML file that can be read.") from error
    return OwnFile(path, path.stem, {}, _parsed(path, text))


def _header(path: Path, text: str) -> dict[str, str | None]:
    """``{"package": "_global_"}`` of a file that begins with ``# @package _global_``."""
    try:
        return dict(ConfigSource._get_header_dict(text[:512]))
    except ValueError as error:
        raise ConfigError(f"{shown(path)}, line 1: {error}; allowed: '# @package _global_', or nothing.") from error


def _parsed(path: Path, text: str) -> yaml.Node | None:
    """The file as nodes, which know their lines.

    Raises:
        ConfigError: it is not UTF-8 or not YAML, or says something twice, or makes objects.
    """
    try:
        node = yaml.compose(text, Loader=get_yaml_loader())
        _check_nodes(path, node, "", {})
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(path, text, error)) from error
    except RecursionError as error:
        raise ConfigError(f"{shown(path)} nests too deep; allowed: two levels, section and key.") from error
    return node


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(UTF_16) or b"\0" in content:
        raise ConfigError(f"{shown(path)} is not UTF-8 (it looks like UTF-16); allowed: the same text saved as UTF-8.")
    if content.startswith(BOM) and b"@package" in content[:512]:
        raise ConfigError(
            f"{shown(path)}, line 1: a byte-order mark hides '# @package' from Hydra; allowed: UTF-8 without it (many "
            "editors call it 'UTF-8', not 'UTF-8 with BOM')."
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{shown(path)}, line {line}: the byte {content[error.start]:#04x} is not UTF-8; allowed: the same text "
            "saved as UTF-8."
        ) from error


def _not_yaml(path: Path, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = mark.line if mark is not None else text.count("\n", 0, getattr(error, "position", 0))
    lines = text.splitlines() or [""]
    here = lines[min(line, len(lines) - 1)]
    where = f"{shown(path)}, line {min(line, len(lines) - 1) + 1}"
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return f"{where}: {here.strip()} is indented with a tab; allowed: spaces."
    if "another document" in str(getattr(error, "problem", "")):
        return f"{where}: a second document begins; allowed: one in a file."
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    return f"{where}: {here.strip() or 'it'} is no YAML ({problem}); allowed: key: value, sections indented by spaces."


def _check_nodes(path: Path, node: yaml.Node | None, above: str, seen: dict[int, bool]) -> None:
    """Refuse keys that stand twice, tags that make objects, and what contains itself.

    Args:
        seen: nodes met before (an alias is the same node), and whether one is still being looked at.
    """
    if node is None:
        return
    where = f"{shown(path)}, line {node.start_mark.line + 1}"
    if seen.get(id(node)):
        raise ConfigError(f"{where}: {above.rstrip('.') or 'this'} contains itself; allowed: values without it.")
    if node.tag.startswith(("!", PLAIN_TAG)) and node.tag.removeprefix(PLAIN_TAG) not in PLAIN:
        raise ConfigError(f"{where}: {node.tag} is no plain value; allowed: text, numbers, lists and mappings.")
    if id(node) in seen:
        return
    seen[id(node)] = True
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        _check_nodes(path, item, above, seen)
    first: dict[str, yaml.Node] = {}
    for key, value in entries(node):
        name = f"{above}{key.value}" if isinstance(key, yaml.ScalarNode) else ""
        if name and name in first and key.value != "<<":
            raise ConfigError(
                f"{shown(path)}, line {key.start_mark.line + 1}: {name} stands here a second time (first in line "
                f"{first[name].start_mark.line + 1}); allowed: once."
            )
        first[name] = key
        _check_nodes(path, value, f"{name}.", seen)
    seen[id(node)] = False

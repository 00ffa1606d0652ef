"""Files of the user's own that are no YAML in UTF-8, or say something twice: named with their line."""

from pathlib import Path

import pytest

from pipeline.config.own_files import misnamed, own_files
from pipeline.runtime.errors import ConfigError

HEADER = "# @package _global_\n"
TEXT = f"{HEADER}logger:\n  notes: Größe\n"
UNREADABLE = {
    "utf16": (TEXT.encode("utf-16"), ["e.yaml", "UTF-16", "saved as UTF-8"]),
    "utf16_without_mark": (TEXT.encode("utf-16-le"), ["e.yaml", "UTF-16"]),
    "latin1": (TEXT.encode("latin-1"), ["e.yaml, line 3", "0xf6", "UTF-8"]),
    "mark": (TEXT.encode("utf-8-sig"), ["e.yaml, line 1", "byte-order mark", "UTF-8 without it"]),
    "tab": (f"{HEADER}head:\n\tdepth: 2\n".encode(), ["e.yaml, line 3", "depth: 2", "tab", "spaces"]),
    "twice": (
        f"{HEADER}head:\n  depth: 2\n  width: 8\n  depth: 3\n".encode(),
        ["line 5", "head.depth", "line 3", "once"],
    ),
    "section_twice": (
        f"{HEADER}head: {{}}\nhead: {{}}\n".encode(),
        ["e.yaml, line 3", "head stands", "first in line 2"],
    ),
    "deep_twice": (b"# @package _global_\nbackbone:\n  kwargs:\n    a: 1\n    a: 2\n", ["line 5", "backbone.kwargs.a"]),
    "open_bracket": (f"{HEADER}head: {{depth: 2\n".encode(), ["e.yaml, line 2", "no YAML", "key: value"]),
    "indented_less": (f"{HEADER}head:\n  depth: 2\n width: 3\n".encode(), ["e.yaml, line 4", "width: 3", "no YAML"]),
    "control_character": (f"{HEADER}head:\n  depth: \x01\n".encode(), ["e.yaml, line 3", "no YAML"]),
    "two_documents": (f"{HEADER}seed: 1\n---\nseed: 2\n".encode(), ["e.yaml, line 3", "second document", "one"]),
    "object": (f"{HEADER}seed: !!python/object:os.system 1\n".encode(), ["e.yaml, line 2", "os.system", "plain value"]),
    "itself": (f"{HEADER}data: &a\n  classes: [*a]\n".encode(), ["e.yaml, line 2", "data", "contains itself"]),
    "deep": (f"{HEADER}head: {'[' * 5000}\n".encode(), ["e.yaml", "nests too deep"]),
    "header": (b"# @package head x\ndepth: 2\n", ["e.yaml, line 1", "@package"]),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named_with_its_line(case, tmp_path, monkeypatch, compose_own):
    content, parts = UNREADABLE[case]
    place(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        compose_own(tmp_path, "experiment=e")
    assert str(caught.value).startswith("my/experiment/e.yaml") and "allowed: " in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_aliases_that_explode_are_looked_at_once(tmp_path, compose_own):
    levels = "".join(f"  k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]\n" for i in range(1, 30))
    place(tmp_path, f"{HEADER}backbone:\n  k0: &k0 [1]\n{levels}  k0: 1\n".encode())
    with pytest.raises(ConfigError, match="k0 stands here a second time"):
        compose_own(tmp_path, "experiment=e")


def test_what_was_read_is_forgotten_by_the_next_composition(tmp_path, compose_own):
    place(tmp_path, f"{HEADER}seed: 1\n".encode())
    assert compose_own(tmp_path, "experiment=e").seed == 1
    assert [file.name for file in own_files()] == ["experiment/e"]
    compose_own(tmp_path)
    assert own_files() == []


def test_a_file_that_ends_in_yml_is_found_for_the_error(tmp_path, compose_own):
    place(tmp_path, b"seed: 1").rename(tmp_path / "my/experiment/e.yml")
    with pytest.raises(Exception):  # noqa: B017  (Hydra's)
        compose_own(tmp_path, "experiment=e")
    assert misnamed("experiment/e") == tmp_path / "my/experiment/e.yml"


def place(folder: Path, content: bytes) -> Path:
    file = folder / "my/experiment/e.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file

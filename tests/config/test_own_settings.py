"""What is wrong in a file of the user's own is told with file, line, key and what is allowed."""

import pytest

from pipeline.config.messages import explain

HEADER = "# @package _global_\n"
FAULTS = {
    "typo": ("head:\n  dept: 2\n", 3, ["head.dept is not a known key", "depth, width", "did you mean depth?"]),
    "section": ("hed:\n  depth: 2\n", 2, ["hed is not a known key", "optimizer, head", "did you mean head?"]),
    "type": ("head:\n  width: 8\n  depth: two\n", 4, ["head.depth", "'two'", "an integer >= 0"]),
    "comma": ("optimizer:\n  lr: 0,05\n", 3, ["optimizer.lr", "'0,05'", "a finite number > 0"]),
    "mapping": ("head:\n  depth:\n    x: 2\n", 3, ["head.depth", "an integer >= 0"]),
    "range": ("head:\n  width: 0\n", 3, ["head.width=0 is out of range", "an integer >= 1"]),
    "choice": ("head:\n  loss: mze\n", 3, ["head.loss=mze", "did you mean mse?"]),
    "list": ("head:\n  weight_decay: [1, x]\n", 3, ["head.weight_decay=[1,x]", "a finite number >= 0"]),
    "empty_section": ("seed: 1\nhead:\n", 3, ["head is empty", "depth, width"]),
    "scalar_section": ("head: 3\n", 2, ["'3' is no setting of head", "depth, width"]),
    "no_space": ("head:\n  depth:2\n", 3, ["depth:2", "did you mean depth: 2?"]),
    "equals": ("head:\n  depth=2\n", 3, ["depth=2", "did you mean depth: 2?"]),
    "dotted": ("head.depth: 2\n", 2, ["head.depth is not a known key", "indented below head"]),
    "number": ("1: 2\n", 2, ["1 is not a known key"]),
    "words": ("hello\n", 2, ["'hello' is no setting"]),
    "items": ("- 1\n", 2, ["is a list", "key: value"]),
    "hydra": ("hydra:\n  jb: {}\n", 3, ["hydra.jb is not a known key", "did you mean job?"]),
    "interpolation": ("head:\n  depth: ${head.widht}\n", 3, ["head.depth", "head.widht"]),
    "environment": ("head:\n  depth: ${oc.env:NO_SUCH_NAME}\n", 3, ["head.depth", "NO_SUCH_NAME", "not set"]),
    "half": ("head:\n  depth: ${\n", 3, ["head.depth"]),
    "override": ("defaults:\n  - override /haed: relu\n", 3, ["/haed", "override /head", "did you mean head?"]),
    "no_override": ("defaults:\n  - /head: relu\n", 3, ["/head is chosen already", "override /head"]),
    "default": ("defaults:\n  - override /head: rlu\n", 3, ["head=rlu is not known", "did you mean relu?"]),
    "defaults": ("defaults: relu\n", 2, ["defaults is no list", "override /head"]),
}
WITHOUT_PACKAGE = {
    "none": ("head:\n  depth: 2\n", ["has no '# @package'", "experiment", "'# @package _global_'"]),
    "empty": ("", ["is empty", "'# @package _global_'"]),
    "list": ("- 1\n", ["holds no settings (key: value)", "'# @package _global_'"]),
    "comments": ("# nothing\n", ["is empty", "'# @package _global_'"]),
    "mistyped": (f"{HEADER.replace('package', 'pakage')}seed: 1\n", ["@pakage is not known", "did you mean package?"]),
    "unknown": ("# @package hed\ndepth: 2\n", ["package hed is no section", "_global_", "did you mean head?"]),
}


def told(tmp_path, compose_own, files: dict[str, str], *overrides: str) -> str:
    """What is said of files in a folder of one's own."""
    for name, text in files.items():
        (tmp_path / "my" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my" / name).write_text(text)
    with pytest.raises(Exception) as caught:
        compose_own(tmp_path, *overrides)
    return explain(caught.value)


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_told_with_file_line_key_and_what_is_allowed(case, tmp_path, compose_own):
    text, line, parts = FAULTS[case]
    sentence = told(tmp_path, compose_own, {"experiment/e.yaml": HEADER + text}, "experiment=e")
    assert sentence.startswith(f"my/experiment/e.yaml, line {line}: "), sentence
    assert "\n" not in sentence and all(part in sentence for part in parts), sentence


@pytest.mark.parametrize("case", WITHOUT_PACKAGE)
def test_a_file_that_belongs_to_no_section_is_told_with_the_line_it_needs(case, tmp_path, compose_own):
    text, parts = WITHOUT_PACKAGE[case]
    sentence = told(tmp_path, compose_own, {"experiment/e.yaml": text}, "experiment=e")
    assert sentence.startswith("my/experiment/e.yaml") and all(part in sentence for part in parts), sentence


def test_in_the_folder_of_a_section_keys_are_those_of_the_section(tmp_path, compose_own):
    assert "head.dept is not a known key" in told(tmp_path, compose_own, {"head/a.yaml": "dept: 2\n"}, "head=a")
    sentence = told(tmp_path, compose_own, {"head/b.yaml": "head:\n  depth: 2\n"}, "head=b")
    assert sentence.startswith("my/head/b.yaml, line 1: head.head") and "'# @package _global_'" in sentence
    sentence = told(tmp_path, compose_own, {"hed/c.yaml": "depth: 2\n"}, "+hed=c")
    assert sentence.startswith("my/hed/c.yaml") and "did you mean head?" in sentence


def test_what_an_argument_says_is_not_blamed_on_a_file(tmp_path, compose_own):
    files = {"experiment/e.yaml": f"{HEADER}head:\n  depth: 2\n"}
    assert told(tmp_path, compose_own, files, "experiment=e", "head.depth=-1").startswith(
        "head.depth=-1 is out of range"
    )
    assert told(tmp_path, compose_own, files, "experiment=f").startswith("experiment=f is not known")


def test_a_file_that_ends_in_yml_is_named(tmp_path, compose_own):
    sentence = told(tmp_path, compose_own, {"experiment/e.yml": f"{HEADER}seed: 1\n"}, "experiment=e")
    assert "e.yaml for my/experiment/e.yml" in sentence


def test_files_without_faults_compose(tmp_path, compose_own):
    (tmp_path / "my/head").mkdir(parents=True)
    (tmp_path / "my/head/mine.yaml").write_text("defaults:\n  - relu\ndepth: 2\n")
    (tmp_path / "my/experiment").mkdir()
    (tmp_path / "my/experiment/e.yaml").write_text(f"{HEADER}defaults:\n  - override /head: mine\nseed: 3\n")
    config = compose_own(tmp_path, "experiment=e")
    assert (config.head.depth, config.seed) == (2, 3)

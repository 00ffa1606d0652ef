"""A file that describes no study is refused in one sentence with its line, and nothing is written."""

import pytest

from pipeline.studies.engine.command import main

BEGIN = "settings:\n  protocol: dufm\naxes:\n"
BAD = [
    ("axis: {seed: [0]}\n", ("line 1", "axis", "axes", "did you mean axes?")),
    ("", ("axes", "settings")),
    ("- a\n", ("line 1", "axes")),
    ("experiment: e3_mnist48_mlp\n", ("line 1", "e3_mnist48_mlp", "did you mean e3_mnist49_mlp?")),
    ("experiment: [e1]\n", ("line 1", "experiment=a list")),
    ("settings: 3\n", ("line 1", "settings=3", "setting: value")),
    (BEGIN + "  head.depht: [3]\n", ("line 4", "head.depht", "did you mean head.depth?")),
    (BEGIN + "  head.depth: 3\n", ("line 4", "head.depth=3", "[value, value]")),
    (BEGIN + "  head.depth: []\n", ("line 4", "head.depth is empty")),
    (BEGIN + "  variant: {}\n", ("line 4", "variant is empty")),
    (BEGIN + "  variant: {a: {head.depht: 3}}\n", ("line 4", "head.depht", "did you mean head.depth?")),
    (BEGIN + "  seed: [0]\n  seed: [1]\n", ("line 5", "seed", "second time")),
    (BEGIN + "\tseed: [0]\n", ("line 4", "tab")),
    (BEGIN + "  head.depth: [2]\n  head: [relu]\n  head.width: [oops]\n", ("line 6", "head.width", "integer")),
    (BEGIN + "  head.depth:\n    - 2\n    - -1\n", ("line 6", "head.depth=-1", ">= 0")),
    (BEGIN + "  protocol.num_classes: [2020-01-01]\n", ("line 4", "protocol.num_classes", "2020-01-01", "integer")),
    (BEGIN + "  protocol: [dufm]\n", ("line 4", "protocol", "settings")),
    (BEGIN + "  head: [relo]\n", ("line 4", "head=relo", "did you mean relu?")),
    (BEGIN + "  hydra.run.dir: [a]\n", ("line 4", "hydra.run.dir")),
    (BEGIN + "  seed: [0]\nfigures: [last_lair]\n", ("line 5", "last_lair", "did you mean last_layer?")),
    (BEGIN + "  seed: [0]\nfigures: all\n", ("line 5", "figures=all", "a list")),
    (BEGIN + "  seed: [0]\ntables: [rums]\n", ("line 5", "rums", "did you mean runs?")),
    (BEGIN + "  seed: [0]\nexpect: {dnc4: 1}\n", ("line 5", "dnc4", "did you mean nc4?")),
    (BEGIN + "  seed: [0]\nexpect: {dnc1: low}\n", ("line 5", "dnc1=low", "number")),
    ("settings:\n  logger._target_: os.system\n", ("line 2", "code", "backbone._target_")),
    ("settings:\n  backbone.kwargs: {a: {_target_: os.system}}\n", ("line 2", "code", "backbone._target_")),
    ("settings:\n  data.root: !!binary aGk=\n", ("line 2", "data.root", "bytes")),
    ("settings:\n  seed: !!python/object/apply:os.system ['touch x']\n", ("line 2", "plain value")),
    ("study: e9\n", ("line 1", "study=e9", "e3")),
    ("study: e1\nversion: quik\n", ("line 2", "version=quik", "did you mean quick?")),
    ("study: e1\nexperiment: e1\n", ("line 2", "one of them")),
    ("experiment: e1\naxes: {experiment: [e1, e4]}\n", ("line 2", "experiment")),
    ("version: quick\n", ("line 1", "study")),
    ("study: e1\nfigures: [training]\n", ("line 2", "figures", "e1")),
]


def refused(path: str, tmp_path, monkeypatch, capsys) -> str:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as exit_:
        main([path])
    err = capsys.readouterr().err
    assert exit_.value.code == 2 and err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert "allowed" in err and sorted(tmp_path.rglob("*")) == before
    return err


@pytest.mark.parametrize(("text", "parts"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_said_with_its_line(text, parts, tmp_path, monkeypatch, capsys):
    (tmp_path / "my.yaml").write_text(text)
    err = refused("my.yaml", tmp_path, monkeypatch, capsys)
    assert "my.yaml" in err and [part for part in parts if part not in err] == [], err


def test_files_that_are_none(tmp_path, monkeypatch, capsys):
    assert "nowhere.yaml: No such file" in refused("nowhere.yaml", tmp_path, monkeypatch, capsys)
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml: Is a directory" in refused("folder.yaml", tmp_path, monkeypatch, capsys)
    (tmp_path / "latin.yaml").write_bytes("title: Größe\n".encode("latin-1"))
    assert "latin.yaml, line 1" in (err := refused("latin.yaml", tmp_path, monkeypatch, capsys)) and "UTF-8" in err
    (tmp_path / "e1.yaml").write_text("axes: {seed: [0]}\n")
    assert "e1 is the name of a study" in refused("e1.yaml", tmp_path, monkeypatch, capsys)
    (tmp_path / "two words.yaml").write_text("axes: {seed: [0]}\n")
    assert "two words" in refused("two words.yaml", tmp_path, monkeypatch, capsys)

"""A variation of a study has a folder of its own, named after what varies."""

import re
from pathlib import Path

import pytest

from pipeline.studies.engine.folders import LONGEST, folder_of, variation_name
from pipeline.studies.engine.study import FULL, QUICK


def test_a_smaller_version_and_a_variation_have_folders_of_their_own(tmp_path):
    assert folder_of(tmp_path, FULL, ()) == tmp_path
    assert folder_of(tmp_path, QUICK, ()) == tmp_path / "quick"
    assert folder_of(tmp_path, FULL, ["head.width=16"]) == tmp_path / "head.width=16"
    assert folder_of(tmp_path, QUICK, ["head.width=16"]) == tmp_path / "quick" / "head.width=16"


def test_the_folder_does_not_depend_on_where_one_stands_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of(Path("out"), FULL, ()) == tmp_path / "out"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], ""),
        (["seed=3", "head.width=16"], "head.width=16,seed=3"),
        (["head.width=16", "seed=3"], "head.width=16,seed=3"),
        (["seed=3", "seed=4"], "seed=4"),
        (["data.classes=[0,1]"], "data.classes=0,1"),
        (["+backbone.hidden=[8]"], "backbone.hidden=8"),
        (["data.root=/somewhere", "logger=wandb", "logger.project=x", "trainer.threads=1", "record.figures=false"], ""),
        (["data.root=/somewhere", "trainer.precision=bf16"], "trainer.precision=bf16"),
    ],
)
def test_a_variation_is_named_after_what_varies_in_any_order(overrides, name):
    assert variation_name(overrides) == name


@pytest.mark.parametrize("value", ["a b", "a/b", "../..", "größe", "a'b", "$HOME", "x" * 300, "*"])
def test_odd_values_make_safe_names_that_differ(value):
    name = variation_name([f"logger_group={value}"])
    assert re.fullmatch(r"[A-Za-z0-9._=+,-]+", name) and len(name) <= LONGEST + 9
    assert name != variation_name([f"logger_group={value}_"])

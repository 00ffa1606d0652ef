"""A run touches what runs have made, and nothing that people keep beside it."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.runtime.files import TEMPORARY, remove_temporaries
from pipeline.runtime.tensor_files import serialised
from pipeline.storage.ownership import (
    FOLDERS,
    RESULTS,
    SETTINGS,
    in_the_way,
    remove_intermediate,
    remove_run,
    remove_settings,
)

MINE = (
    *(".notes.tmp", "sub/.draft.tmp.txt", ".cache.tmpfiles/x", ".lock", "notes.txt", "stages/prepare.py"),
    *(
        "stages/sub/a.safetensors",
        "stages/text.safetensors",
        "checkpoints/backbone.previous.ckpt",
        "checkpoints/best.pt",
    ),
    *("figures/mine.png", ".hydra/mine.yaml", f"sub/{TEMPORARY}1-x.json", f"stages/{TEMPORARY}x", "wandb/mine"),
    "checkpoints/best.pt",
)


def mine(folder: Path) -> dict[Path, bytes]:
    for name in MINE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"mine")
    save_file({"a": torch.zeros(1)}, folder / "stages" / "head.safetensors", {"format": "pt"})
    (folder / "checkpoints" / f"{TEMPORARY}7-folder").mkdir()
    os.mkfifo(folder / "stages" / "dufm.half.safetensors")
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made_by_a_run(folder: Path) -> list[Path]:
    """What a run that was killed has left."""
    kept = serialised({"a": torch.zeros(1)}, {"key": "k", "rows": [], "undefined": []})
    files = {f"{TEMPORARY}12-summary.json": b"", f"stages/{TEMPORARY}12-head.half.safetensors": b""}
    files |= {"stages/features.safetensors": kept, "stages/added.safetensors": kept, "stages/dufm.safetensors": b"cut"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def test_the_end_of_a_run_removes_what_runs_have_made_and_nothing_else(tmp_path):
    before, made = mine(tmp_path), made_by_a_run(tmp_path)
    remove_temporaries(tmp_path / name for name in FOLDERS)
    remove_intermediate(tmp_path)
    assert not any(path.exists() for path in made)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_is_removed_leaves_what_lies_beside_it(tmp_path):
    before = mine(tmp_path)
    made_by_a_run(tmp_path)
    remove_temporaries(tmp_path / name for name in FOLDERS)
    for name in (*RESULTS, *SETTINGS, "dnc.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_run(tmp_path)
    remove_settings(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_a_run_made_in_folders_of_its_own_goes_with_them(tmp_path):
    made_by_a_run(tmp_path)
    remove_temporaries(tmp_path / name for name in FOLDERS)
    remove_intermediate(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_link_to_other_peoples_folder_is_not_followed(tmp_path):
    kept = made_by_a_run(tmp_path / "theirs")
    (tmp_path / "run").mkdir()
    for name in ("stages", "checkpoints"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "theirs" / "stages")
    remove_temporaries(tmp_path / "run" / name for name in FOLDERS)
    remove_intermediate(tmp_path / "run")
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_the_folder_of_an_earlier_attempt_of_any_version_is_taken(status, tmp_path):
    made_by_a_run(tmp_path)
    (tmp_path / "record.csv").touch()
    assert in_the_way(tmp_path) == tmp_path / "record.csv"
    (tmp_path / "summary.json").write_text(json.dumps({"status": status}))
    assert in_the_way(tmp_path) is None


def test_settings_tell_a_run_unless_they_were_written_just_now(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "summary.json").write_text("{")
    (tmp_path / ".hydra" / "config.yaml").write_text("protocol: {name: dufm}\nhead: {}\ndescent: {}\n")
    assert in_the_way(tmp_path) is None
    assert in_the_way(tmp_path, by_settings=False) == tmp_path / "summary.json"

"""wandb's own log and cache have a place where the user has none, and it is gone afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.views.wandb.home import cache_folder

USE = """
import os, sys
from pathlib import Path
from pipeline.views.wandb.runs import close_runs, open_runs
before = dict(os.environ)
runs = open_runs("offline", Path("r"), "run", [""], 60.0, project="p", group=None)
assert dict(os.environ).get("XDG_CACHE_HOME") == before.get("XDG_CACHE_HOME")
runs[0].log({"a": 1})
close_runs(runs, 0)
"""


@pytest.mark.parametrize("home", [None, "", "/proc/nowhere"])
def test_without_a_home_wandb_prints_nothing_and_leaves_nothing_behind(home, tmp_path):
    temporary, work = tmp_path / "tmp", tmp_path / "work"
    temporary.mkdir()
    (work / "r").mkdir(parents=True)
    # A test before this one may have wandb's service, which a child would share.
    gone = ("HOME", "XDG_CACHE_HOME", "WANDB")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
    kept |= {"TMPDIR": str(temporary), **({} if home is None else {"HOME": home})}
    done = subprocess.run([sys.executable, "-c", USE], cwd=work, env=kept, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list((work / "r/wandb").glob("offline-run-*/run-*.wandb"))
    assert [path.name for path in work.iterdir()] == ["r"]
    assert not list(temporary.glob("dnc-wandb-*"))


def test_a_home_of_the_users_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with cache_folder():
        assert "XDG_CACHE_HOME" not in os.environ
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    with cache_folder():
        assert os.environ["XDG_CACHE_HOME"] == str(tmp_path / "c")


def test_a_cache_that_cannot_be_written_is_replaced_for_the_time(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with cache_folder():
        assert Path(os.environ["XDG_CACHE_HOME"]).is_dir()
    assert os.environ["XDG_CACHE_HOME"] == "/proc/nowhere"

"""A run folder belongs to one process at a time, and to nobody once that process is dead."""

import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.runtime.lock import FILE, FolderLock, Occupied, occupied

HOLD = "import sys; from pathlib import Path; from pipeline.runtime.lock import FolderLock; "
HOLD += "lock = FolderLock(Path(sys.argv[1])); "
HOLD += "print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder's lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_who_is_there(holder, tmp_path):
    with pytest.raises(Occupied, match=f"process {holder.pid} on "):
        FolderLock(tmp_path)
    assert occupied(tmp_path)
    assert str(holder.pid) in (tmp_path / FILE).read_text()  # asking has not changed the owner's words


def test_the_lock_of_a_killed_process_is_gone(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / FILE).exists() and not occupied(tmp_path)
    FolderLock(tmp_path).release()


def test_a_released_folder_is_free_and_empty(tmp_path):
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == [] and not occupied(tmp_path)
    FolderLock(tmp_path).release()


def test_a_process_that_opened_the_file_before_its_release_does_not_share_the_folder(tmp_path):
    first = FolderLock(tmp_path)
    with pytest.raises(Occupied):
        FolderLock(tmp_path)
    first.release()
    first.release()  # twice is once
    second = FolderLock(tmp_path)
    assert occupied(tmp_path)
    second.release()


def test_a_file_that_its_owner_has_removed_is_no_lock(tmp_path, monkeypatch):
    first = FolderLock(tmp_path)
    lock = fcntl.flock

    def released_first(stream, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        first.release()  # between the second's opening of the file and its locking it
        lock(stream, how)

    monkeypatch.setattr(fcntl, "flock", released_first)
    second = FolderLock(tmp_path)
    assert occupied(tmp_path)  # whoever looks, looks at the file that the second holds
    with pytest.raises(Occupied):
        FolderLock(tmp_path)
    second.release()


def test_somebody_who_only_looks_is_no_owner(tmp_path, monkeypatch):
    with open(tmp_path / FILE, "a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as `occupied` does, for a moment
        monkeypatch.setattr(time, "sleep", lambda seconds: fcntl.flock(stream, fcntl.LOCK_UN))
        FolderLock(tmp_path).release()


def test_children_that_are_given_the_lock_hold_it_when_its_owner_is_gone(tmp_path):
    code = (
        HOLD.rpartition("print(")[0]
        + "import subprocess; child = [sys.executable, '-c', 'import sys; sys.stdin.read()']; "
    )
    code += "subprocess.Popen(child, pass_fds=[lock.fileno()]); print('held', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout.readline() == b"held\n"
        owner.wait()
        assert occupied(tmp_path)
        owner.stdin.close()  # which the child reads
        owner.stdout.read()
    FolderLock(tmp_path).release()


def test_the_lock_is_released_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lock = FolderLock(Path())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    lock.release()
    assert not (tmp_path / FILE).exists()


def test_a_folder_that_is_not_there_is_not_occupied(tmp_path):
    assert not occupied(tmp_path / "nowhere")
    with pytest.raises(OSError, match="nowhere"):
        FolderLock(tmp_path / "nowhere")


TURN = """
import sys, time
from pathlib import Path
from pipeline.runtime.lock import one_at_a_time

folder = Path(sys.argv[1])
with one_at_a_time(folder / "turn"):
    first = not (folder / "made").exists()
    time.sleep(0.2)
    (folder / "made").touch()
print(first)
"""


def test_processes_take_turns(tmp_path):
    command = [sys.executable, "-c", TURN, tmp_path]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["False", "False", "True"]

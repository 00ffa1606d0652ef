"""A file is there whole, or as it was before."""

import pytest

from pipeline.runtime import files
from pipeline.runtime.files import TEMPORARY, atomic


def test_a_file_appears_when_it_is_whole_and_nothing_stays_beside_it(tmp_path):
    path = tmp_path / "a folder" / "file.txt"
    with atomic(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists() and TEMPORARY in temporary.name
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_what_goes_wrong_while_writing_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_disk_names_the_file_that_was_to_be_written(tmp_path, monkeypatch):
    def full(path: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(OSError, match="No space left") as caught, atomic(tmp_path / "file.txt") as temporary:
        temporary.write_text("half")
    assert caught.value.filename == str(tmp_path / "file.txt") and list(tmp_path.iterdir()) == []

"""A child runs the code that this process runs, wherever either of them stands."""

import subprocess
import sys

from pipeline.runtime.children import module_command


def test_a_child_finds_our_modules_and_not_those_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "speaker.py").write_text("import sys; print('ours', sys.argv[1:], __name__)")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "speaker.py").write_text("print('theirs')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("ours")  # relative: as it was understood when it was added
    command = module_command("speaker", "a b", "--flag")
    done = subprocess.run(command, cwd=theirs, capture_output=True, text=True, check=True)
    assert done.stdout == "ours ['a b', '--flag'] __main__\n"
    assert command[0] == sys.executable


def test_a_child_can_be_started_where_the_working_directory_is_gone(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, subprocess, sys; from pipeline.runtime.children import module_command; os.rmdir(os.getcwd()); "
    code += "sys.exit(subprocess.run(module_command('pipeline.runtime.errors')).returncode)"
    assert subprocess.run([sys.executable, "-P", "-c", code], cwd=gone).returncode == 0

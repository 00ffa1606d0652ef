"""Whatever happens to the standard streams, a program goes on as if they were read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from pipeline.runtime.streams import steady_streams
steady_streams()
for line in range(20000):
    print("to standard output", line)
    if line % 1000 == 0:
        print("to standard error", line, file=sys.stderr, flush=True)
sys.stdout.flush()
with open("done", "w") as kept:
    kept.write(f"{kept.fileno()}")
"""
ARGUMENTS = '"$@"'
WAYS = {
    "closed output": "{} >&-",
    "closed error": "{} 2>&-",
    "all closed": "{} <&- >&- 2>&-",
    "a reader of one line": "{} | head -n 1",
    "a reader of one line of both": "{} 2>&1 | head -n 1",
    "a reader of nothing": "{} | true",
    "a full disk": "{} > /dev/full",
    "a full disk for both": "{} > /dev/full 2>&1",
}


def ended(way: str, *command: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a command with its streams as a shell line has them; the code is the command's own."""
    line = f"set -o pipefail; {WAYS[way].format(ARGUMENTS)}"
    return subprocess.run(["bash", "-c", line, "bash", *command], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("unbuffered", [[], ["-u"]], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_nobody_reads_changes_nothing(way, unbuffered, tmp_path):
    done = ended(way, sys.executable, *unbuffered, "-c", PROGRAM, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "done").read_text()) > 2  # and no file of ours got what is printed
    others = [line for line in done.stderr.splitlines() if not line.startswith("to standard error")]
    told = ["stdout cannot be written (No space left on device); going on."] if way == "a full disk" else []
    assert others == told


def test_what_is_read_comes_whole_and_in_order(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"to standard output {line}" for line in range(20000)]
    assert done.stderr.splitlines() == [f"to standard error {line}" for line in range(0, 20000, 1000)]


@pytest.mark.parametrize("way", ["closed output", "closed error", "a reader of one line"])
def test_a_run_completes_whoever_reads_it(way, tmp_path):
    settings = ["protocol=dufm", "logger=none", "record.figures=false", "descent.steps=2", "hydra.run.dir=r"]
    done = ended(way, sys.executable, "-m", "pipeline", *settings, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "completed"
    assert (tmp_path / "r" / "record.csv").exists() and "head" in (tmp_path / "r" / "dnc.log").read_text()

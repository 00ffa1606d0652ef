"""Progress: lines now and then and always a last one in a log, a bar on a terminal."""

import logging
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pipeline.runtime import progress
from pipeline.runtime.progress import Progress

REPO = Path(__file__).parents[2]


def lines_of(caplog) -> list[str]:
    """What the package logged; other libraries of this process have logs of their own."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("pipeline.")]


def test_a_log_gets_a_line_every_so_often_and_one_at_the_end(caplog, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), Progress("head", 100, "step") as bar:
        bar.headline("loss 0.5")
        bar.advance_to(25)
        bar.advance_to(100)
    lines = lines_of(caplog)
    assert len(lines) == 3 and "step 25/100" in lines[0] and "s left" in lines[0]
    assert "step 100/100" in lines[-1] and "loss 0.5" in lines[-1] and "\r" not in "".join(lines)


def test_a_stage_that_fails_reports_no_end(caplog):
    try:
        with caplog.at_level(logging.INFO), Progress("head", 100, "step"):
            raise RuntimeError
    except RuntimeError:
        pass
    assert lines_of(caplog) == []


PROGRAM = """
import logging, sys, time
from pipeline.runtime.progress import Progress
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
with Progress("head", 100, "step") as progress:
    for done in (25, 50, 75):
        progress.advance_to(done)
        time.sleep(0.3)
        logging.info("message at %d", done)
print("afterwards")
"""


def test_on_a_terminal_log_lines_stand_above_the_bar_and_not_within_it():
    terminal, end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=end, stdout=end, stderr=end, env=environment, cwd=REPO
    ) as process:
        os.close(end)
        shown = b""
        with suppress(OSError):  # what a closed terminal answers
            while chunk := os.read(terminal, 4096):
                shown += chunk
    os.close(terminal)
    assert process.returncode == 0
    text = shown.decode()
    assert "step" in text and "━" in text and "afterwards" in text
    for done in (25, 50, 75):
        before = text[: text.index(f"message at {done}")].rpartition("\n")[2]
        assert "━" not in re.sub(r".*\x1b\[2K", "", before)  # the bar's line was erased before the message was printed


def test_what_is_usually_short_is_not_mentioned_unless_it_was_long(caplog, monkeypatch):
    def passes() -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO), Progress("pass", 2, "batch", brief=True) as bar:
            bar.advance_to(1)
            bar.advance_to(2)
        return [line.split("  ")[1] for line in lines_of(caplog)]

    assert passes() == []
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    assert passes() == ["batch 1/2", "batch 2/2", "batch 2/2"]


def test_rate_and_time_left_of_a_continued_stage_count_what_is_done_now(caplog, monkeypatch):
    now = iter([0.0, 10.0, *[20.0] * 9])
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 15.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with caplog.at_level(logging.INFO), Progress("head", 1000, "step") as bar:
        bar.advance_to(900)  # at 10 s: of these most were done by an earlier attempt
        bar.advance_to(950)  # at 20 s
        [line] = lines_of(caplog)
        assert line == "head  step 950/1000  5.00 steps/s  20 s, 10 s left"

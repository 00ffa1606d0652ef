"""Progress off a terminal: lines now and then, and always a last one."""

import logging

from pipeline import progress
from pipeline.progress import Progress


def test_a_log_gets_a_line_every_so_often_and_one_at_the_end(caplog, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), Progress("head", 100, "step") as bar:
        bar.headline("loss 0.5")
        bar.advance_to(25)
        bar.advance_to(100)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3 and "step 25/100" in lines[0] and "s left" in lines[0]
    assert "step 100/100" in lines[-1] and "loss 0.5" in lines[-1] and "\r" not in "".join(lines)


def test_a_stage_that_fails_reports_no_end(caplog):
    try:
        with caplog.at_level(logging.INFO), Progress("head", 100, "step"):
            raise RuntimeError
    except RuntimeError:
        pass
    assert caplog.records == []

"""What is said to the log, and when."""

import logging

import pytest

from pipeline.runtime.console import held_back, say

LOG = logging.getLogger("pipeline.somewhere")


def test_what_is_held_back_is_said_later_once_and_in_order(caplog):
    caplog.set_level(logging.INFO)
    with held_back() as kept:
        LOG.info("one of %d", 2)
        LOG.warning("two")
    assert caplog.text == ""
    say(kept)
    say(kept)
    assert caplog.messages == ["one of 2", "two"]
    LOG.info("three")
    assert caplog.messages[2:] == ["three"]


def test_what_was_held_back_is_said_before_an_error(caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(KeyError), held_back():
        LOG.info("what may explain it")
        raise KeyError
    assert caplog.messages == ["what may explain it"]

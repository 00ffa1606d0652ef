"""What a record says of the machine, the versions and the time its numbers took."""

import pytest
import torch

from pipeline.runtime import environment as module
from pipeline.runtime.environment import Stopwatch, environment


def test_the_versions_are_those_that_are_imported():
    found = environment("cpu")
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["device"].startswith("cpu (") and found["threads"] == torch.get_num_threads()


def test_seconds_of_a_stage_add_up_also_when_it_fails(monkeypatch):
    now = iter([0.0, 2.0, 10.0, 13.0, 20.0, 20.5])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(now))
    watch = Stopwatch()
    for stage in ("training", "training", "descent"):
        with pytest.raises(RuntimeError), watch.time(stage):
            assert watch.current == stage
            raise RuntimeError
    assert watch.seconds == {"training": 5.0, "descent": 0.5}

"""What a worker answers."""

import pytest

from pipeline.config import Config, ProtocolConfig
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.runtime.lock import FolderLock
from pipeline.studies.engine.jobs import Job, Order
from pipeline.studies.engine.results import Point
from pipeline.studies.engine.workers import working

pytestmark = pytest.mark.slow
SMALL = ["descent.steps=5", "descent.seeds=1", "head.width=3", "protocol.num_features=3", "record.figures=false"]


def order(folder, *overrides: str) -> Order:
    return Job.plan("e1", Point("here", ()), [*SMALL, *overrides], folder).order()


def test_a_worker_makes_runs_says_who_else_does_and_why_it_cannot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not where this process was started
    with working(1, threads=1) as workers:
        (worker,) = workers.idle
        made = order((tmp_path / "made").relative_to(tmp_path))
        worker.give(made)
        assert workers.busy == [worker]
        assert next(workers.ready(120)) is worker and worker.answer() == (made, None)
        assert (tmp_path / "made" / "tensors.safetensors").exists() and workers.idle == [worker]

        (tmp_path / "taken").mkdir()
        lock = FolderLock(tmp_path / "taken")
        worker.give(order(tmp_path / "taken"))
        assert worker.answer()[1].startswith("process ")
        lock.release()

        worker.give(order(tmp_path / "bad", "protocol=frozen_features", "data.samples_per_class=9999"))
        with pytest.raises(ConfigError, match=r"data\.samples_per_class=9999"):
            worker.answer()

        worker.give(Order("broken", Config(protocol=ProtocolConfig(name="no such protocol")), tmp_path / "broken"))
        with pytest.raises((RunError, ConfigError)):
            worker.answer()
    assert worker.process.poll() is not None

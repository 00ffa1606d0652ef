"""What a run draws: an overview of its record, and the figures that its sections bring."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from pipeline.runs import execution
from pipeline.runs.outcome import Outcome
from pipeline.runs.sections import FactsSection
from pipeline.runtime.environment import Stopwatch
from pipeline.runtime.errors import RunError
from pipeline.storage.record import Record


class Drawn(FactsSection):
    def figure(self, record, summary):
        assert isinstance(record, pd.DataFrame) and summary["title"] == "a title"
        return Figure()


@pytest.fixture
def folder(tmp_path):
    Record(tmp_path).save()
    return tmp_path


def test_a_section_may_bring_a_figure_beside_the_overview(folder, monkeypatch):
    monkeypatch.setattr("pipeline.views.figures.run_figure", lambda record, summary: Figure())
    outcome = Outcome((FactsSection("plain", {}), Drawn("drawn", {})))
    made = execution._draw(outcome, {"title": "a title"}, folder)
    assert {path.name for path in made} == {"collapse.png", "collapse.pdf", "drawn.png", "drawn.pdf"}
    assert all(path.is_file() for path in made)


REFUSED = "put_ does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'."


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (REFUSED, "trainer.deterministic=true refuses put_ in train_backbone"),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out of memory on cpu"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "out of memory on cpu"),
    ],
)
def test_what_a_device_refuses_is_a_sentence(raised, said, tmp_path):
    config = SimpleNamespace(device=torch.device("cpu"), backbone=SimpleNamespace(batch_size=8))
    run = SimpleNamespace(config=config, stopwatch=Stopwatch())
    with (
        pytest.raises(RunError, match=said),
        execution._advice_on_memory(run),
        run.stopwatch.time("train_backbone"),
    ):
        raise RuntimeError(raised)

"""What a run draws: an overview of its record, and the figures that its sections bring."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from pipeline.runs import execution
from pipeline.runs.outcome import Outcome
from pipeline.runs.sections import FactsSection
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
    monkeypatch.setattr(execution, "run_figure", lambda record, summary: Figure())
    outcome = Outcome((FactsSection("plain", {}), Drawn("drawn", {})))
    made = execution._draw(outcome, {"title": "a title"}, folder)
    assert {path.name for path in made} == {"collapse.png", "collapse.pdf", "drawn.png", "drawn.pdf"}
    assert all(path.is_file() for path in made)

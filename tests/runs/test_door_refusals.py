"""Into which folders a run is let."""

import json

import pytest

from pipeline.runs.door import refuse_completed, refuse_others
from pipeline.runtime.errors import ConfigError
from pipeline.storage.ownership import RESULTS, SETTINGS


@pytest.mark.parametrize("name", [*map(str, (*RESULTS, *SETTINGS)), "stages/head.safetensors"])
def test_a_folder_in_which_a_run_would_replace_something_of_others_is_refused(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("[1]")
    with pytest.raises(ConfigError, match=rf"holds {name}, which no run of ours.*allowed: a new folder") as caught:
        refuse_others(tmp_path)
    assert "summary.json: it is a list" in str(caught.value) or name != "summary.json"


def test_a_folder_with_nothing_of_our_names_is_taken_and_a_completed_run_is_not(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "prepare.py").touch()
    refuse_others(tmp_path)
    refuse_completed(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"status": "completed"}))
    refuse_others(tmp_path)
    with pytest.raises(ConfigError, match="holds a completed run"):
        refuse_completed(tmp_path)

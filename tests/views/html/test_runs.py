"""Run folders are found and read, whatever became of the run."""

import copy
import json
import os
import statistics

import pytest

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.lock import FolderLock
from pipeline.storage import settings_files
from pipeline.storage.reading import yaml_of
from pipeline.views.html import facts
from pipeline.views.html.comparing import comparison_table
from pipeline.views.html.runs import LocalRun, find_runs, is_run, open_run, open_runs, status_of
from pipeline.views.listing import Listing, plain_lines


def test_a_multirun_folder_is_one_that_contains_run_folders(sweep):
    assert [path.name for path in find_runs(sweep)] == ["0", "1"]
    assert [run.name for run in open_runs([sweep])] == ["0", "1"]
    assert not is_run(sweep) and is_run(sweep / "0")


def test_a_run_given_twice_is_shown_once(sweep):
    assert [run.name for run in open_runs([sweep / "1", sweep, sweep / "0"])] == ["1", "0"]


def test_jobs_are_in_natural_order_and_nothing_within_a_run_is_a_run(tmp_path):
    for name in ("10", "9", "b", "9/checkpoints", ".hidden"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "summary.json").write_text('{"status": "running", "protocol": "dufm"}')
    assert [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)] == ["9", "10", "b"]


def test_the_headline_is_the_median_over_seeds_of_the_summary(sweep):
    (run, failed), summary = open_runs([sweep]), json.loads((sweep / "0" / "summary.json").read_text())
    last = next(place for place in summary["layers"] if (place["layer"], place["tap"]) == (3, "post"))
    for metric in ("dnc1", "dnc2", "dnc3"):
        assert run.known_by(metric) == statistics.median(last[metric])
    assert run.known_by("gap_to_optimum") == statistics.median(summary["loss"]["relative_gap"])
    assert run.protocol == "dufm" and run.subject == "free features, K=3, n=5"
    assert failed.status == "failed" and failed.headline == () and "diverged" in failed.error


@pytest.mark.parametrize(("first", "said"), [(None, "none"), (1, "every layer"), (2, "layers 2..3"), (3, "last layer")])
def test_where_collapse_begins_in_two_words(sweep, copied, first, said):
    def change(summary: dict) -> None:
        summary.pop("headline", None)  # as before summaries had one
        summary["verdict"].update(collapsed_from_layer=first)

    assert LocalRun(copied(sweep / "0", "run", change), "").known_by("collapse") == said


def test_what_a_run_was_of_is_not_guessed_where_its_summary_says_nothing(copied, sweep):
    """Every configuration names a data set and a network, also that of free features."""
    folder = copied(sweep / "0", "run")
    assert LocalRun(folder, "").subject == "free features, K=3, n=5"
    (folder / "summary.json").write_text("{bad")
    run = LocalRun(folder, "")
    assert run.status == "unreadable" and run.subject == "" and run.protocol == "dufm"
    (folder / "summary.json").unlink()
    assert LocalRun(folder, "").subject == ""


def test_a_run_is_running_as_long_as_its_process_holds_the_lock(killed):
    lock = FolderLock(killed)
    assert open_run(killed).status == "running"
    lock.release()
    assert open_run(killed).status == "killed"


def test_a_killed_run_has_no_numbers(killed):
    run = open_run(killed)
    assert run.status == "killed" and not run.completed and run.headline == ()
    assert run.subject == "digits / mlp"
    frame, reason = run.record()
    assert frame is None and "no record.csv" in reason


def test_a_folder_with_nothing_but_a_configuration_is_a_run_that_never_began(killed):
    (killed / "summary.json").unlink()
    run = open_run(killed)
    assert run.status == "not begun" == status_of(killed, None) and run.protocol == "frozen_features"


def test_what_a_step_counts_is_known_of_runs_that_did_not_complete_too(sweep, copied):
    described = {"stages": {"head": {"title": "Head", "unit": "epoch", "layers": "numbered"}}}
    told = copied(sweep / "1", "told", lambda summary: summary.update(described))
    assert open_run(told).summary.stage("head").unit == "epoch"
    assert [run.summary.stage("head").unit for run in open_runs([sweep])] == ["gradient step"] * 2
    assert open_run(sweep / "1").summary.stage("backbone").unit == "epoch"


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"status": "comp', b"\xff\xfe\x00", b'{"status": 7}'])
def test_a_damaged_summary_is_unreadable_and_says_why(killed, content):
    (killed / "summary.json").write_bytes(content)
    run = open_run(killed)
    assert run.status == "unreadable" and run.error.startswith("summary.json: ") and not run.completed
    assert run.protocol == "frozen_features" and run.headline == ()


def places(value, path=()):
    """Places within nested JSON; of lists the last, which is looked at by itself as well as with the others."""
    yield path
    pairs = value.items() if isinstance(value, dict) else list(enumerate(value))[-1:] if isinstance(value, list) else ()
    for key, item in pairs:
        yield from places(item, (*path, key))


@pytest.mark.parametrize("wrong", [None, "text", -1, {"a": {}}], ids=repr)
def test_no_value_at_any_place_of_a_summary_stops_a_look_at_the_runs(wrong, sweep, copied, monkeypatch):
    kept = {}  # what Hydra kept does not change meanwhile
    monkeypatch.setattr(
        settings_files, "yaml_of", lambda path, shape: kept.get(path) or kept.setdefault(path, yaml_of(path, shape))
    )
    folder, good = copied(sweep / "0", "run"), LocalRun(sweep / "0", "good")
    written = json.loads((folder / "summary.json").read_text())
    for path in places(written):
        changed = copy.deepcopy({"root": written})
        node = changed
        for key in ("root", *path)[:-1]:
            node = node[key]
        node[("root", *path)[-1]] = wrong
        (folder / "summary.json").write_text(json.dumps(changed["root"]))
        run = LocalRun(folder, "run")
        comparison_table(good, run)
        assert len(plain_lines(Listing.of([good, run]))) == 2 + 2
        for part in (facts.headline, facts.verdict, facts.environment, facts.citation):
            part(run)
        facts.further(run, "h2")


@pytest.mark.parametrize("content", ["", "stage,step\n", "stage,step,seed,layer,tap,metric,value\nhead,1,0,2,po", "\0"])
def test_a_damaged_record_is_named_with_the_reason(copied, sweep, content):
    folder = copied(sweep / "0", "run")
    (folder / "record.csv").write_text(content)
    frame, reason = LocalRun(folder, "").record()
    assert frame is None and reason.startswith("record.csv is unreadable: ")


@pytest.mark.parametrize("content", ["a: [", "- 1", "a: ${nowhere}", "\t"])
def test_a_damaged_configuration_does_not_stop_a_look_at_the_run(copied, sweep, content):
    folder = copied(sweep / "0", "run")
    (folder / ".hydra" / "config.yaml").write_text(content)
    assert open_run(folder).protocol == "dufm"


def test_folders_without_a_run_are_refused_in_a_sentence_that_names_them(tmp_path):
    with pytest.raises(ConfigError, match="nowhere is not there; allowed: the folder of a run, or of a multirun"):
        open_runs([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="is no run's folder and none lies below it"):
        open_runs([tmp_path])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is not a folder"):
        open_runs([tmp_path / "file"])
    with pytest.raises(ConfigError, match="is no run's folder"):
        open_run(tmp_path)


def test_browsing_resolves_nothing(killed, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    texts = ["${oc.env:WANDB_API_KEY}", "${oc.decode:${oc.env:WANDB_API_KEY}}"]
    settings = {"protocol": {"name": texts[0]}, "logger": {"notes": texts[1]}}
    (killed / ".hydra" / "config.yaml").write_text(json.dumps(settings))
    (killed / ".hydra" / "overrides.yaml").write_text(f"- logger.notes={texts[0]}\n")
    run = open_run(killed)
    assert run.config == settings
    assert run.overrides == [f"logger.notes={texts[0]}"]


@pytest.mark.parametrize("file", [".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "summary.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, "a: &a [1]\nb: *a", "7", "9" * 5000, "\x1b[2J"])
def test_a_file_that_cannot_be_used_makes_its_run_unreadable_and_no_other(file, content, killed, copied, digits_run):
    (killed / file).write_text(content)
    strange, sound = open_runs([killed, digits_run])
    assert strange.status == "unreadable" and strange.error.startswith(f"{file}: ") and strange.error.isprintable()
    assert not strange.completed and strange.headline == () and "is unreadable" in strange.title
    assert sound.status == "completed" and sound.error is None


def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_not_waited_for(killed):
    os.mkfifo(killed / ".dnc.lock")
    assert open_run(killed).status == "killed"
    (killed / "summary.json").unlink()
    os.mkfifo(killed / "summary.json")
    assert open_run(killed).error == "summary.json: it is no file"

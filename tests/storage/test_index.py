"""What lists need of many runs is kept beside them, and is never believed of a run that has changed since."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.storage import index
from pipeline.storage.summary import RunSummary
from pipeline.views.html.runs import LocalRun, find_runs, runs_below

COUNT = index.FEWEST + 5
SUMMARY = {"status": "completed", "protocol": "dufm", "uses": {"images": False, "network": False, "head": None}}
SUMMARY |= {"stages": {}, "sections": [], "metrics": {}, "own": {"speed": 3}}


def write(run: Path, number: int, **more) -> None:
    """The files of a run."""
    (run / ".hydra").mkdir(parents=True, exist_ok=True)
    headline = [{"name": "dnc1", "label": "DNC1", "value": number / 7}]
    content = SUMMARY | {"headline": headline, "title": f"run {number}", "layers": []} | more
    (run / "summary.json").write_text(json.dumps(content))
    (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"seed": number, "head": {"depth": 3, "width": 8}}))
    (run / ".hydra" / "overrides.yaml").write_text(f"- seed={number}\n")
    started = {"cwd": "/home/somebody", "config_sources": [{"path": "own", "provider": "command-line"}]}
    (run / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": started}}))


@pytest.fixture
def many(tmp_path, monkeypatch) -> Path:
    """Runs in folders of two depths, which nobody has changed lately."""
    monkeypatch.setattr(index, "SETTLED_NS", -(10**15))
    for number in range(COUNT):
        write(tmp_path / ("a" if number % 2 else "") / str(number), number)
    return tmp_path


def seen(folder: Path) -> dict[str, tuple]:
    """All that lists look at, by run."""
    return {run.name: told(run) for run in runs_below(folder)}


def told(run: LocalRun) -> tuple:
    found = run.summary
    return (
        (run.status, run.error, run.protocol, run.subject, run.title, run.headline, dict(run.settings)),
        (
            run.overrides,
            run.hydra.get("runtime"),
            found.further,
            found.stages,
            found.sections,
            found.uses,
            dict(found.written),
        ),
    )


def read_afresh(folder: Path) -> dict[str, tuple]:
    return {path.name: told(LocalRun(path, path.name)) for path in find_runs(folder)}


def test_by_the_index_runs_are_what_they_are_without_it(many):
    expected = read_afresh(many)
    assert seen(many) == expected and (many / index.FILE).is_file()
    assert all(run.kept for run in runs_below(many))
    assert seen(many) == expected, "read by the index that the first look has written"


def test_no_file_of_a_run_is_opened_for_a_list_by_the_index(many, monkeypatch):
    runs_below(many)
    monkeypatch.setattr("pipeline.storage.reading.Path.read_text", _refused_within_runs(Path.read_text))
    for run in runs_below(many):
        assert run.headline[0].value == run.settings["seed"] / 7 and run.status == "completed"
        with pytest.raises(AssertionError, match=r"summary\.json"):  # what no list shows is read when it is asked for
            run.summary.written["layers"]


def _refused_within_runs(read_text):
    def refuse(path: Path, *arguments, **options) -> str:
        assert path.name == index.FILE, path.name
        return read_text(path, *arguments, **options)

    return refuse


@pytest.mark.parametrize("file", ["summary.json", ".hydra/config.yaml", ".hydra/overrides.yaml"])
def test_a_run_that_has_changed_is_read_again(many, file):
    runs_below(many)
    before = (many / "4" / file).stat()
    text = (many / "4" / file).read_text().replace("4", "5")
    (many / "4" / file).write_text(text)
    os.utime(many / "4" / file, ns=(before.st_atime_ns, before.st_mtime_ns))  # same length, same time, same inode
    assert seen(many) == read_afresh(many)
    shutil.rmtree(many / "4")
    write(many / "new", 99, status="failed", error="it diverged")
    assert seen(many) == read_afresh(many) and "4" not in seen(many)


def test_what_changed_just_now_is_not_kept(many, monkeypatch):
    monkeypatch.setattr(index, "SETTLED_NS", 10**15)
    assert seen(many) == read_afresh(many) and not (many / index.FILE).exists()


def test_runs_that_cannot_be_used_are_not_kept(many):
    (many / "4" / "summary.json").write_text("[" * 1000)
    (many / "6" / ".hydra" / "hydra.yaml").write_text("7")
    runs_below(many)
    states = {run.name: (run.status, bool(run.kept)) for run in runs_below(many)}
    assert {name for name, state in states.items() if state != ("completed", True)} == {"4", "6"}
    assert states["4"] == states["6"] == ("unreadable", False)


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 320 + ".5", "1" + "0" * 90 + "e" + "0" * 98 + "299"])
def test_a_run_with_an_infinite_number_is_read_by_itself(many, number):
    """The index is JSON, which has none."""
    text = (many / "4" / "summary.json").read_text()
    (many / "4" / "summary.json").write_text(
        json.dumps(json.loads(text) | {"own": "x"}, indent=2).replace('"x"', number)
    )
    (many / "6" / ".hydra" / "config.yaml").write_text("seed: 6\nhead:\n  width: .inf\n")
    assert seen(many) == read_afresh(many)
    assert {run.name for run in runs_below(many) if not run.kept} == {"4", "6"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"completed"', '"interrupted"'),
        lambda text: "[" * 10**5,
        lambda text: signed('{"form": 2, "pool": [], "runs": [1]}'),
        lambda text: signed(json.dumps(json.loads(text.partition("\n")[2]) | {"pool": []})),
        lambda text: signed(json.dumps(json.loads(text.partition("\n")[2]) | {"pool": [[[]]] * 1000})),
        lambda text: signed(text.partition("\n")[2].replace('"form":2', '"form":1')),
    ],
    ids=["empty", "cut", "changed", "deep", "a list", "no pool", "another pool", "another form"],
)
def test_an_index_that_makes_no_sense_is_made_anew(many, damage):
    expected = seen(many)
    file = many / index.FILE
    sound = file.read_text()
    file.write_text(damage(sound))
    assert seen(many) == expected
    assert file.read_text() == sound


def signed(content: str) -> str:
    return f"{index._digest(content)}\n{content}"


def test_where_nothing_can_be_written_and_among_few_runs_there_is_no_index(many, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(index._Index, "write", refuse)
        assert seen(many) == read_afresh(many) and not (many / index.FILE).exists()
    assert len(runs_below(many / "a")) <= index.FEWEST and not (many / "a" / index.FILE).exists()


def test_few_new_runs_leave_the_index_as_it_is_and_many_are_added(many):
    runs_below(many)
    first = (many / index.FILE).read_bytes()
    write(many / "new", 99)
    assert "new" in seen(many) and (many / index.FILE).read_bytes() == first
    for number in range(100, 100 + COUNT):
        write(many / str(number), number)
    assert seen(many) == read_afresh(many)
    assert all(run.kept for run in runs_below(many))


def test_a_summary_by_the_index_says_what_is_in_it_before_it_is_read(many):
    run = runs_below(many)[0]
    assert isinstance(run.summary, RunSummary) and "layers" in run.summary.written
    assert run.summary.written.get("nothing") is None and len(run.summary.written) == len(dict(run.summary.written))

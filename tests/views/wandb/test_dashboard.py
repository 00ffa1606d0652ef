"""The dashboard shows what the pipeline logs, and says in a sentence why it cannot be built."""

import json
import os
import re
import subprocess
import sys

import handmade
import pytest
import wandb as client
from tracked import curves, environment
from wandb_server import ENTITY, KEY, serving

from pipeline.views.wandb import content
from pipeline.views.wandb.dashboard import main
from pipeline.views.wandb.layout import figure_panels, layout, logged_by


def dashboard(folder, *arguments: str, before: str = "", **variables: str) -> subprocess.CompletedProcess:
    """Run the command; ``before`` is Python that runs first in the same process."""
    code = f"{before}\nimport sys\nfrom pipeline.views.wandb.dashboard import main\nmain(sys.argv[1:])"
    env = environment(folder / "home", variables)
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, env=env, capture_output=True, text=True)


def test_every_key_of_the_dashboard_is_logged_by_a_run(online):
    run = online.server.only_run
    history, summary = list(curves(run.history)), run.summary
    system = {key for line in run.lines["wandb-events.jsonl"].values() for key in json.loads(line)}
    for panel in [panel for section in layout() for panel in section.panels] + list(figure_panels()):
        keys = set(panel.keys)
        if panel.kind == "curve" and panel.x == "_runtime":
            assert keys and {key.replace("/", ".", 1) for key in keys} <= system, panel
        elif panel.kind == "curve":
            rows = [set(row) for row in history if panel.x in row]
            assert any(keys <= row for row in rows), panel
            assert keys or any(re.search(panel.pattern, key) for row in rows for key in row), panel
        elif panel.kind in ("profile", "table"):
            (content,) = (body for file, body in run.files.items() if file.startswith(f"media/table/{panel.table}_"))
            assert panel.table in summary and keys <= set(json.loads(content)["columns"]), panel
        else:
            assert keys and keys <= set(summary), panel


def test_patterns_take_every_layer_of_the_head_and_the_backbone(online):
    logged = {key for row in curves(online.server.only_run.history) for key in row}
    patterns = [panel.pattern for section in layout() for panel in section.panels if panel.pattern]
    taken = {key for key in logged if any(re.search(pattern, key) for pattern in patterns)}
    assert taken == {key for key in logged if re.search("/(pre|post)/(dnc1|dnc2|dnc3)$", key)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with serving() as server:
        done = dashboard(folder, "--project", "p", "--group", "e1", **server.environment)
    assert done.returncode == 0, done.stderr
    return done, server.views


def panels_of(node) -> list[dict]:
    """All panels in a saved view, wherever they are."""
    if isinstance(node, list):
        return [panel for item in node for panel in panels_of(item)]
    if not isinstance(node, dict):
        return []
    own = [node] if "viewType" in node else []
    return own + [panel for value in node.values() for panel in panels_of(value)]


def test_the_workspace_arrives_with_all_its_sections(saved):
    done, (workspace, _) = saved
    assert workspace["entityName"] == ENTITY and workspace["projectName"] == "p"
    assert workspace["type"] == "project-view"
    sections = json.loads(workspace["spec"])["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [section.name for section in layout()]
    for arrived, section in zip(sections, layout(), strict=True):
        assert len(arrived["panels"]) == len(section.panels)
    gap = sections[0]["panels"][1]["config"]
    assert gap["metrics"] == ["head/relative_gap"] and gap["xAxis"] == "head/step" and gap["yLogScale"]
    assert sections[1]["panels"][0]["config"]["metricRegex"] == "^head/layer_(1/pre|[0-9]+/post)/dnc1$"
    assert len(done.stdout.splitlines()) == 2 and KEY not in done.stdout + done.stderr


def test_the_report_arrives_with_the_figures_panels_and_the_group(saved):
    _, (_, report) = saved
    assert report["displayName"] == "Deep neural collapse: e1" and report["type"] == "runs"
    assert len(panels_of(json.loads(report["spec"])["blocks"])) == len(figure_panels())
    assert '"e1"' in report["spec"]


def test_print_needs_neither_server_nor_the_extra(tmp_path):
    done = dashboard(tmp_path, "--print", before="import sys; sys.modules['wandb_workspaces'] = None")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert [section["name"] for section in shown["workspace"]] == [section.name for section in layout()]


def test_panels_are_those_of_what_the_runs_in_a_folder_recorded(tmp_path, capsys):
    folders = {kind: make(tmp_path / kind) for kind, make in handmade.KINDS.items()}
    main(["--print", "--runs", str(folders["no head"]), str(folders["two stages"])])
    shown = json.loads(capsys.readouterr().out)["workspace"]
    assert [section["name"] for section in shown] == ["Layer profile", "Backbone", "Growing", "Pruning", "System"]
    backbone = next(section["panels"] for section in shown if section["name"] == "Backbone")
    assert [panel["title"] for panel in backbone[:2]] == ["loss", "accuracy"]
    assert [panel["pattern"] for panel in backbone[2:]] == ["^backbone/.+/dnc1$", "^backbone/.+/dnc2$"]
    pruning = next(section["panels"] for section in shown if section["name"] == "Pruning")
    assert pruning[-1]["title"] == "Share of idle units" and pruning[-1]["log"] == ""
    assert not any("head/" in str(panel) for section in shown for panel in section["panels"])


def test_runs_that_recorded_nothing_leave_the_system_alone(tmp_path):
    assert [section.name for section in layout(logged_by([handmade.with_nothing(tmp_path / "run")]))] == ["System"]


def test_a_folder_without_a_record_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--print", "--runs", str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and line.startswith(f"error: {tmp_path} holds no record.csv")


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run the command in this process with the given variables; the sentence it ends with, and its exit code."""

    def run(**variables: str) -> tuple[str, int]:
        for name in [name for name in os.environ if name.startswith("WANDB")]:
            monkeypatch.delenv(name)
        for name, value in {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), **variables}.items():
            monkeypatch.setenv(name, value)
        client.teardown()  # it has read its settings once and for all
        with pytest.raises(SystemExit) as exit_:
            main([])
        said = capsys.readouterr()
        assert said.out == "" and "Traceback" not in said.err
        return said.err.splitlines()[-1], exit_.value.code

    yield run
    client.teardown()


def test_a_missing_extra_is_said_in_a_sentence(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    for name in ("wandb_workspaces.reports.v2", "wandb_workspaces.workspaces"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    sentence, code = refused()
    assert code == 2 and sentence.startswith("error: the package wandb-workspaces is missing; pip install ")


def test_a_missing_key_is_said_in_a_sentence(refused):
    assert refused() == ("error: no API key found (WANDB_API_KEY or `wandb login`).", 2)


def test_a_missing_server_is_said_in_a_sentence(refused):
    sentence = "error: http://127.0.0.1:9 does not answer."
    assert refused(WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9") == (sentence, 2)


def test_a_wrong_key_is_said_in_a_sentence(refused):
    with serving() as server:
        sentence, code = refused(WANDB_BASE_URL=server.url, WANDB_API_KEY="f" * 40)
    assert code == 2 and sentence.startswith("error: wandb refused the dashboard: ") and not server.views


def test_with_the_metric_first_every_curve_is_found_under_its_other_name():
    key = {"head": "head/layer_2/{tap}/{metric}", "backbone": "backbone/network.fc/post/{metric}"}
    pairs = zip(layout(), layout(order="metric"), strict=True)
    both = [pair for before, after in pairs for pair in zip(before.panels, after.panels, strict=True)]
    patterns = [(one.pattern, other.pattern) for one, other in both if one.pattern]
    assert len(patterns) > 5 and all(one.x == other.x for one, other in both)
    for one, other in patterns:
        stage, metric = one.strip("^$").split("/")[0], one.strip("^$").rpartition("/")[2]
        names = [key[stage].format(tap=tap, metric=metric) for tap in ("pre", "post")]
        found = [name for name in names if re.search(one, name)]
        assert found and [name for name in names if re.search(other, content.ordered(name, "metric"))] == found
    assert [other.keys for one, other in both if "head/loss" in one.keys] == [("loss/head", "fit/head")]

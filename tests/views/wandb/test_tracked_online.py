"""What a run of the command tells a wandb server is what stands in its record."""

import json
import math
import os
from pathlib import Path

import pytest
from tracked import DUFM, assert_same, curves, expected_rows, run
from wandb_server import KEY, serving

from pipeline.storage.record import read_record, read_summary


def test_every_row_of_the_record_arrives_once_as_means_over_seeds(online):
    history = online.server.only_run.history
    assert_same(list(curves(history)), expected_rows(online.record))
    assert [row["_step"] for row in history] == list(range(len(history)))


def test_every_curve_has_the_step_of_its_stage_as_x_axis(online):
    run = online.server.only_run
    definitions = run.config["_wandb"]["m"]
    globs = {entry["2"].removesuffix("*"): definitions[entry["5"] - 1]["1"] for entry in definitions if "2" in entry}
    keys = {key for row in curves(run.history) for key in row}
    assert {key.split("/")[0] for key in keys} == {"backbone", "head"}
    for row in curves(run.history):
        for key in row:
            (axis,) = (axis for prefix, axis in globs.items() if key.startswith(prefix))
            assert axis == f"{key.split('/')[0]}/step" and axis in row


def test_the_summary_has_the_last_and_the_smallest_values(online):
    summary, rows = online.server.only_run.summary, list(curves(online.server.only_run.history))
    for stage in ("backbone", "head"):
        last = [row for row in rows if f"{stage}/step" in row][-1]
        assert {key: summary[key] for key in last} == last
    for key in ("head/loss", "head/relative_gap", "backbone/train_loss", "backbone/test_loss"):
        assert summary[f"min/{key}"] == min(row[key] for row in rows if key in row)


def test_the_headline_is_the_gap_of_the_worst_seed(online):
    arrived, kept = online.server.only_run.summary, online.summary
    assert arrived["gap_to_optimum"] == max(kept["loss"]["relative_gap"]) > min(kept["loss"]["relative_gap"])
    assert arrived["optimum"] == kept["loss"]["optimum"] and arrived["status"] == "completed"
    assert arrived["loss"] == pytest.approx(sum(kept["loss"]["total"]) / 2, rel=1e-12)
    assert arrived["verdict"] == kept["verdict"]["text"]
    assert arrived["test_accuracy"] == pytest.approx(sum(kept["accuracy"]["test"]) / 2)


def test_runs_are_organised_without_being_told(online):
    run = online.server.only_run
    assert run.said("groupName") == "mine" and run.said("jobType") == "frozen_features"
    assert run.said("tags") == ["a", "b"] and run.said("notes") == "a note"
    assert run.said("displayName").startswith("frozen_features data.samples_per_class=20 ")
    assert run.config["head"]["depth"] == 3 and run.config["backbone"]["hidden"] == [16, 8]
    assert "logger" not in run.config
    assert run.exit_codes == [0]


def table_of(run, name: str) -> list[dict]:
    (content,) = (body for file, body in run.files.items() if file.startswith(f"media/table/{name}_"))
    table = json.loads(content)
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def test_the_tables_say_what_the_summary_says(online):
    run, kept = online.server.only_run, online.summary
    layers = table_of(run, "layers")
    assert [(row["stage"], row["layer"], row["tap"]) for row in layers] == [
        (stage, str(entry["layer"]), entry["tap"])
        for stage, entries in (("backbone", kept["backbone_layers"]), ("head", kept["layers"]))
        for entry in entries
    ]
    for row, entry in zip(layers, [*kept["backbone_layers"], *kept["layers"]], strict=True):
        assert row["dnc1"] == pytest.approx(sum(entry["dnc1"]) / len(entry["dnc1"]), rel=1e-12)
        assert (row["dnc3"] is None) == (entry["dnc3"] is None)
    for row, place in zip(table_of(run, "verdict_by_layer"), kept["verdict"]["layers"], strict=True):
        assert row["dnc2"] == place["dnc2"]["value"] and row["dnc2_holds"] == place["dnc2"]["collapsed"]


def test_the_table_of_seeds_has_every_seeds_curves(online):
    table = table_of(online.server.only_run, "seeds")
    record = online.record.query("metric == 'dnc1' and stage == 'head'")
    found = {
        (row["step"], row["seed"], row["layer"], row["tap"]): row["dnc1"]
        for row in table
        if row["stage"] == "head" and row["layer"]
    }
    assert found == {(row.step, row.seed, row.layer, row.tap): row.value for row in record.itertuples()}


def test_figures_and_tensors_arrive_byte_by_byte(online):
    run = online.server.only_run
    (image,) = (body for file, body in run.files.items() if file.startswith("media/images/figures/collapse"))
    assert image == (online.folder / "figures" / "collapse.png").read_bytes()
    (tensors,) = (artifact for artifact in online.server.artifacts if artifact["artifactTypeName"] == "tensors")
    assert tensors["files"]["tensors.safetensors"] == (online.folder / "tensors.safetensors").read_bytes()


def test_the_learning_rate_is_that_of_the_schedule(online):
    rates = {row["backbone/step"]: row["backbone/learning_rate"] for row in history_of(online, "backbone/step")}
    assert rates == pytest.approx({epoch: 0.05 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(4)})


def history_of(online, key: str) -> list[dict]:
    return [row for row in online.server.only_run.history if key in row]


def test_parameters_are_counted(online):
    summary, width = online.server.only_run.summary, 8
    assert summary["parameters/backbone"] == 64 * 16 + 16 + 16 * width + width
    assert summary["parameters/head"] == width * width + width * width + width * 2


def test_the_team_that_was_named_owns_the_run(online):
    assert online.server.only_run.said("entity") == "loopback"


def test_the_end_of_a_run_is_alerted(online):
    (alert,) = online.server.alerts
    assert alert["title"] == "finished" and alert["severity"] == "INFO"
    assert online.summary["title"] in alert["text"]


def test_norms_of_features_arrive_as_histograms(online):
    from safetensors.torch import load_file

    found = {key: value for row in online.server.only_run.history for key, value in row.items() if "norms" in key}
    places = ("layer_1/pre", "layer_2/post", "layer_3/post")
    assert set(found) == {f"feature_norms/head/{place}" for place in places}
    norms = load_file(online.folder / "tensors.safetensors")["features/1"].double().norm(dim=-1).flatten()
    first = found["feature_norms/head/layer_1/pre"]
    assert sum(first["values"]) == norms.numel()
    assert first["bins"][0] == pytest.approx(norms.min().item()) and first["bins"][-1] == pytest.approx(
        norms.max().item()
    )


def test_the_trained_backbone_is_an_artifact_of_the_run(online):
    (kept,) = (artifact for artifact in online.server.artifacts if artifact["artifactTypeName"] == "model")
    assert kept["files"]["backbone.safetensors"] == (online.folder / "checkpoints/backbone.safetensors").read_bytes()


def test_the_key_is_written_nowhere(online):
    assert KEY not in online.said
    files = [path for path in online.folder.parent.rglob("*") if path.is_file()]
    assert len(files) > 10 and not [path for path in files if KEY.encode() in path.read_bytes()]


def test_no_process_of_wandb_outlives_the_run(online):
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    environments = [path for path in Path("/proc").glob("[0-9]*/environ") if b"wandb-core" in _command(path)]
    assert commands and not [path for path in environments if online.server.url.encode() in path.read_bytes()]


def _command(environ: Path) -> bytes:
    try:
        return (environ.parent / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def per_seed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("per_seed")
    with serving() as server:
        run(
            folder,
            [*DUFM, "seed=5", "logger.mode=online", "logger.runs=per_seed", "record.figures=false"],
            server.environment,
        )
    return folder / "run", server


def test_one_run_per_seed_has_the_values_of_that_seed(per_seed):
    folder, server = per_seed
    record, kept = read_record(folder), read_summary(folder)
    runs = {identity.rpartition("-seed")[2]: arrived for identity, arrived in server.runs.items()}
    assert set(runs) == {"5", "6"}
    for index, seed in enumerate((5, 6)):
        arrived = runs[str(seed)]
        assert_same(list(curves(arrived.history)), expected_rows(record[record.seed == seed]))
        assert arrived.summary["gap_to_optimum"] == kept["loss"]["relative_gap"][index]
        assert table_of(arrived, "layers")[0]["dnc1"] == kept["layers"][0]["dnc1"][index]
        assert arrived.exit_codes == [0]


def test_runs_per_seed_share_a_group_and_the_config(per_seed):
    _, server = per_seed
    groups = {arrived.said("groupName") for arrived in server.runs.values()}
    assert len(groups) == 1 and groups.pop()
    assert {json.dumps(arrived.config["head"], sort_keys=True) for arrived in server.runs.values()} != set()

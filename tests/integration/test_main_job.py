"""The main job and the pure-theory job as real processes: every file is there, and every number can be recomputed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import commands, dnc
from disturbance import HEAD
from PIL import Image
from recomputation import (
    assert_same_features,
    assert_summary_is_recomputed_from_tensors,
    collapsed_value,
    record_of,
    summary_of,
)
from safetensors.torch import load_file as load_torch_file

from pipeline.storage.record import SCHEMA_VERSION

SMALL = ["descent.steps=400", "descent.seeds=2", "backbone.epochs=3", "head.depth=3", "head.width=16"]
SMALL += ["descent.records_per_decade=2"]
DUFM = ["protocol=dufm", "protocol.samples_per_class=5", "protocol.num_features=8", "head.width=8"]
DUFM += ["descent.steps=2000", "descent.seeds=2", "record.figures=false", "logger=none"]
DUFM += ["descent.records_per_decade=2"]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The main job on the embedded digits, shrunk."""
    folder = tmp_path_factory.mktemp("main job")
    done = dnc(*SMALL, "hydra.run.dir=run", cwd=folder)
    return folder / "run", done


@pytest.fixture(scope="module")
def dufm_run(tmp_path_factory):
    """The pure-theory job with free features, shrunk."""
    folder = tmp_path_factory.mktemp("dufm")
    done = dnc(*DUFM, "hydra.run.dir=run", cwd=folder)
    return folder / "run", done


def test_the_main_job_leaves_every_file(digits_run):
    run, _ = digits_run
    names = {str(path.relative_to(run)) for path in run.rglob("*") if "wandb" not in path.parts}
    assert {
        "record.csv",
        "summary.json",
        "tensors.safetensors",
        "figures/collapse.png",
        "figures/collapse.pdf",
        "checkpoints/backbone.ckpt",
        "checkpoints/backbone.safetensors",
        ".hydra/config.yaml",
    } <= names
    assert not [name for name in names if "tmp" in name]
    with Image.open(run / "figures" / "collapse.png") as image:
        assert min(image.size) > 800
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def test_the_main_jobs_summary_says_what_was_run(digits_run):
    summary = summary_of(digits_run[0])
    assert summary["schema_version"] == SCHEMA_VERSION
    assert summary["protocol"] == "frozen_features" and summary["status"] == "completed"
    problem = summary["problem"]
    assert (problem["num_classes"], problem["depth"], problem["widths"]) == (2, 3, [64, 16, 16, 2])
    assert problem["weight_decay"] == [5e-3] * 3 and problem["feature_decay"] is None
    assert problem["samples_per_class"] == [142, 146]
    assert summary["loss"]["optimum"] is None and "frozen" in summary["loss"]["optimum_reason"]
    assert summary["loss"]["relative_gap"] is None
    assert [row["layer"] for row in summary["backbone_layers"]] == [
        f"network.hidden{number}" for number in (1, 1, 2, 2)
    ]
    assert [row["tap"] for row in summary["backbone_layers"]] == ["pre", "post"] * 2
    assert summary["accuracy"]["test"][0] > 0.9
    assert {"train_backbone", "extract_features", "solve_head"} <= set(summary["timings"])


def test_every_number_of_the_main_jobs_summary_can_be_recomputed(digits_run):
    assert_summary_is_recomputed_from_tensors(digits_run[0])


def test_every_number_of_the_dufm_jobs_summary_can_be_recomputed(dufm_run):
    assert_summary_is_recomputed_from_tensors(dufm_run[0])


def test_the_record_and_the_tensors_are_read_as_the_docs_show(dufm_run):
    run, _ = dufm_run
    page = Path(__file__).parents[2] / "docs" / "run_folder.md"
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S) if "runs/first" in code)
    names: dict = {}
    exec(code.replace("runs/first", str(run)), names)
    assert len(names["last"]) == 2  # seeds
    assert names["recomputed"].tolist() == pytest.approx(names["last"].value.tolist(), rel=1e-9)


def test_frozen_features_are_stored_once_and_are_those_of_the_frozen_backbone(digits_run):
    import torch
    from sklearn.datasets import load_digits

    from pipeline.data import load_images
    from pipeline.networks import build_backbone

    run, _ = digits_run
    tensors = load_torch_file(run / "tensors.safetensors")
    images = load_images("digits", classes=[0, 1])
    assert len(images.train) + len(images.test) == int(np.isin(load_digits().target, [0, 1]).sum())
    backbone = build_backbone("mlp", images.image_shape)
    backbone.load_state_dict(load_torch_file(run / "checkpoints" / "backbone.safetensors"))
    with torch.no_grad():
        expected = backbone.eval()(images.standardise(images.train.images)).double()
    assert tensors["features/1"].shape == (288, 64)
    assert_same_features(tensors["features/1"], expected)
    assert torch.equal(tensors["labels"], images.train.labels)


def test_the_record_is_tidy_and_ends_with_the_summarys_numbers(digits_run):
    run, _ = digits_run
    frame = record_of(run)
    assert frame.columns.tolist() == ["stage", "step", "seed", "layer", "tap", "metric", "value"]
    assert set(frame.stage) == {"backbone", "head"} and set(frame.tap) == {"pre", "post", ""}
    assert not frame.duplicated(["stage", "step", "seed", "layer", "tap", "metric"]).any()
    head = frame[frame.stage == "head"]
    assert head.step.min() == 0 and head.step.max() == 400 and set(head.layer) == {"", "1", "2", "3"}
    assert set(head[head.layer == "1"].tap) == {"pre"} and set(head[head.layer == "2"].tap) == {"pre", "post"}
    last = head[head.step == 400].set_index(["layer", "tap", "metric", "seed"]).value
    for row in summary_of(run)["layers"]:
        for metric in ("dnc1", "dnc2", "cdnv", "active_units"):
            assert [last[str(row["layer"]), row["tap"], metric, seed] for seed in (0, 1)] == row[metric]


def test_the_offline_wandb_run_mirrors_the_record(digits_run):
    run, _ = digits_run
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    done = subprocess.run(
        [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    frame = record_of(run)
    place = (frame.stage == "head") & (frame.layer == "2") & (frame.tap == "post") & (frame.metric == "dnc1")
    means = frame[place].groupby("step").value.mean()
    for value in means:
        assert f"{value!r}"[:12] in done.stdout
    assert "head/layer_2/post/dnc1" in done.stdout and "backbone/network.hidden1/post/dnc1" in done.stdout


def test_the_verdict_is_printed_and_stored(digits_run):
    run, done = digits_run
    verdict = summary_of(run)["verdict"]
    assert verdict["text"].split()[0] in done.stdout and "DNC1" in done.stdout and "network.hidden2" in done.stdout
    assert "no closed-form value" in verdict["optimum"]
    assert verdict["thresholds"] == {"dnc1": 1e-2, "dnc2": 1.1, "dnc3": 0.1}
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_the_dufm_job_compares_with_the_global_optimum(dufm_run):
    run, done = dufm_run
    summary = summary_of(run)
    assert summary["problem"]["widths"] == [8, 8, 8, 8, 2] and summary["problem"]["samples_per_class"] == 5
    optimum = summary["loss"]["optimum"]
    expected = collapsed_value(2, 5, [5e-4] * 4, 5e-4)
    assert optimum == pytest.approx(expected, rel=1e-12) and summary["loss"]["optimum_kind"] == "global optimum"
    for total, gap in zip(summary["loss"]["total"], summary["loss"]["relative_gap"], strict=True):
        assert gap == pytest.approx(total / optimum - 1, abs=1e-12) and gap > 0
    assert summary["loss"]["sits_at"] == [
        "global optimum" if gap < 0.01 else "none of them" for gap in summary["loss"]["relative_gap"]
    ]
    assert "global optimum" in done.stdout and summary["verdict"]["theorem_applies"]
    assert summary["accuracy"]["test"] is None and summary["backbone_layers"] == []
    assert not (run / "wandb").exists()


def test_the_same_seed_gives_the_same_record(dufm_run, tmp_path):
    """In a fresh interpreter, not in one forked from that which made the first."""
    run, _ = dufm_run
    command = [sys.executable, "-m", "pipeline", *DUFM, "hydra.run.dir=run"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert (run / "record.csv").read_bytes() == (tmp_path / "run" / "record.csv").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["head.inputs=free", "data.classes=[3,7,8]", "data.samples_per_class=20", "backbone.loss=cross_entropy"],
        ["head.weight_decay=[1e-3,2e-3,3e-3]", "head=linear", "optimizer=adamw", "optimizer.lr=1e-3"],
        ["backbone.epochs=0", "head.depth=1", "record.max_tensor_mb=1e-3", "descent=momentum"],
    ],
    ids=["free inputs of three classes", "linear head with one decay per layer", "untrained backbone and one layer"],
)
def test_variants_of_the_main_job_complete(arguments, tmp_path):
    dnc(*SMALL, "logger=none", "record.figures=false", "hydra.run.dir=a run", *arguments, cwd=tmp_path)
    summary = summary_of(tmp_path / "a run")
    assert summary["status"] == "completed"
    if "head.inputs=free" in arguments:
        assert summary["problem"]["feature_decay"] == 5e-6 and summary["problem"]["samples_per_class"] == 20
        assert summary["loss"]["optimum_kind"] == "collapsed solution"
        assert not summary["verdict"]["theorem_applies"]
        assert_summary_is_recomputed_from_tensors(tmp_path / "a run")
    if "backbone.epochs=0" in arguments:
        assert not (tmp_path / "a run" / "tensors.safetensors").exists()
        assert "record.max_tensor_mb" in summary["tensors_reason"]


def test_images_of_ones_own_in_folders_are_enough(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = tmp_path / "my images" / ("zero", "one", "two")[label] if label < 3 else None
        if folder and index < 150:
            folder.mkdir(parents=True, exist_ok=True)
            tinted = np.stack([image * 15, image * 10, image * 5], axis=-1).astype(np.uint8)
            Image.fromarray(tinted).resize((20, 24)).save(folder / f"{index}.png")
    arguments = ["data=image_folder", "data.root=my images", "data.image_size=16", "backbone=resnet20"]
    dnc(
        *arguments,
        *SMALL,
        "backbone.epochs=1",
        "logger=none",
        "record.figures=false",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    summary = summary_of(tmp_path / "run")
    assert summary["problem"]["classes"] == ["one", "two", "zero"] and summary["problem"]["num_classes"] == 3
    assert len(summary["backbone_layers"]) == 2 * 9  # before and after the last activation of every block


def test_a_diverging_head_fails_with_advice_and_a_recognisable_record(tmp_path):
    done = dnc(
        "protocol=dufm",
        "descent.lr=1e6",
        "descent.steps=500",
        "descent.records_per_decade=1",
        *("logger=none", "record.figures=false"),
        "hydra.run.dir=run",
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: the head diverged for every seed")
    assert "descent.lr" in done.stderr and "Traceback" not in done.stderr
    summary = summary_of(tmp_path / "run")
    assert summary["status"] == "failed" and "diverged" in summary["error"]
    assert not (tmp_path / "run" / "tensors.safetensors").exists()


def test_a_diverging_backbone_fails_with_advice(tmp_path):
    done = dnc(*SMALL, "optimizer.lr=1e8", "logger=none", "hydra.run.dir=run", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "error: backbone training diverged" in done.stderr and "optimizer.lr" in done.stderr
    assert summary_of(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_exits_as_asked_and_is_recognisable(number, code, tmp_path):
    arguments = ["protocol=dufm", "descent.steps=10000000", "trainer.checkpoint_seconds=0", "logger=none"]
    arguments.append("descent.records_per_decade=1")
    running = commands().start(*arguments, "hydra.run.dir=run", folder=tmp_path)
    running.wait_for(tmp_path / "run" / HEAD)
    os.kill(running.pid, number)
    done = running.end()
    assert done.code == code, done.err
    assert summary_of(tmp_path / "run")["status"] == "interrupted"


def test_every_job_of_a_multirun_has_its_own_folder_and_wandb_run(tmp_path):
    dnc(
        *["--multirun", "protocol=dufm", "descent.steps=5", "descent.seeds=1", "head.depth=2,3"],
        *["head.width=8", "protocol.samples_per_class=3", "record.figures=false", "hydra.sweep.dir=sweep"],
        cwd=tmp_path,
    )
    for index, depth in enumerate((2, 3)):
        run = tmp_path / "sweep" / str(index)
        assert summary_of(run)["problem"]["depth"] == depth
        assert len(list(run.glob("wandb/offline-run-*/*.wandb"))) == 1

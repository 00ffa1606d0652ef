"""Runs whose numbers go wrong, or do not fit into memory, end in one sentence; what was good stays good."""

import re

import pytest
import torch
from disturbance import RUN, TRAINING, TRAINING_BEFORE, troubled, whole_files
from recomputation import summary_of
from safetensors.torch import save_file

from pipeline.networks import build_backbone


def failed(here, run, *arguments: str) -> str:
    """The one sentence of a run that cannot go on."""
    done = here.start(run, *arguments).end()
    assert done.code == 1 and done.err.count("\n") == 1 and done.err.startswith("error: "), done.err
    assert summary_of(run)["status"] == "failed"
    whole_files(run)
    return done.err


def floats(value: object) -> list[torch.Tensor]:
    """All tensors of floats within a nest of dictionaries and lists."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in floats(part)]


def test_a_batch_that_does_not_fit_into_memory_is_told_with_what_makes_it_smaller(here, tmp_path):
    sentence = failed(here, tmp_path / "run", *troubled("Glutton"))
    assert "out of memory on cpu in train_backbone" in sentence and "backbone.batch_size (now 8)" in sentence


def test_a_training_that_diverges_says_where_and_keeps_its_last_good_checkpoint(here, tmp_path):
    run = tmp_path / "run"
    sentence = failed(here, run, *troubled("Nan"))
    assert "backbone training diverged" in sentence and "optimizer.lr (now 0.05)" in sentence
    assert "NaN" in sentence and "in epoch 3, batch 10" in sentence  # where it was looked for; it came up in batch 7
    for path in (run / TRAINING, run / TRAINING_BEFORE):
        content = torch.load(path, weights_only=True)
        tensors = floats([content["state_dict"], content["optimizer_states"]])
        assert len(tensors) > 4 and all(bool(tensor.isfinite().all()) for tensor in tensors)
        assert content["global_step"] < 27


def test_given_weights_that_hold_nan_are_refused_before_the_run(here, tmp_path):
    weights = dict(build_backbone("mlp", (1, 8, 8), hidden=(8,)).network.state_dict())
    name = next(name for name in weights if name.endswith("bias"))
    weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, tmp_path / "w.safetensors")
    done = here.start(tmp_path / "run", *RUN, f"backbone.checkpoint={tmp_path / 'w.safetensors'}").end()
    assert done.code == 2 and done.err.count("\n") == 1 and not (tmp_path / "run").exists()
    assert re.search(rf"backbone.checkpoint=\S+ holds NaN or infinity in {re.escape(name)};", done.err)


@pytest.mark.parametrize("epochs", [0, 1])
def test_features_that_are_nan_are_told_by_split_and_image(epochs, here, tmp_path):
    sentence = failed(here, tmp_path / "run", *troubled("Blind"), f"backbone.epochs={epochs}")
    assert "train_backbone: the backbone's features of 1 train image(s) hold NaN" in sentence
    assert "first of image 79" in sentence and "optimizer.lr" not in sentence  # nothing was trained yet


def test_a_head_that_diverges_is_told_with_its_step_size(here, tmp_path):
    sentence = failed(here, tmp_path / "run", *RUN, "descent.lr=1e6", "backbone.epochs=1")
    assert "the head diverged for every seed" in sentence and "descent.lr (now 1e+06)" in sentence

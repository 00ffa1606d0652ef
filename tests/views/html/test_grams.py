"""Gram matrices of the class means agree with an independent calculation and with the recorded DNC2."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.views.html.grams import MOST_CLASSES, gram_chart, gram_matrices
from pipeline.views.html.runs import LocalRun


@pytest.fixture(params=["sweep", "digits"])
def run(request, sweep, digits_run) -> LocalRun:
    """Features of their own for each seed, or features that the seeds share."""
    return LocalRun(sweep / "0" if request.param == "sweep" else digits_run, "run")


def test_they_are_those_of_a_forward_pass_of_the_kept_weights(run):
    tensors, problem = load_file(run.folder / "tensors.safetensors"), run.summary.written["problem"]
    features, labels = tensors["features/1"].double(), tensors["labels"]
    layer = features if features.ndim == 2 else features[0]
    wanted = {(1, "pre"): layer}
    for index in range(2, problem["depth"] + 1):
        before = layer @ tensors[f"weights/{index - 1}"][0].double().T
        layer = before.relu()
        wanted |= {(index, "pre"): before, (index, "post"): layer}
    grams, seed = gram_matrices(run.folder, run.summary.written)
    assert seed == 0 and [(gram.layer, gram.tap) for gram in grams] == list(wanted)
    for gram in grams:
        means = torch.stack([wanted[gram.layer, gram.tap][labels == k].mean(0) for k in labels.unique()])
        product = (means @ means.T).numpy()
        np.testing.assert_allclose(gram.matrix, product / np.diag(product).mean(), rtol=1e-10)


def test_their_condition_is_the_recorded_dnc2(run):
    grams, _ = gram_matrices(run.folder, run.summary.written)
    recorded = {(place["layer"], place["tap"]): place["dnc2"][0] for place in run.summary.written["layers"]}
    for gram in grams:
        assert np.sqrt(np.linalg.cond(gram.matrix)) == pytest.approx(recorded[gram.layer, gram.tap], rel=1e-6)


def test_the_first_seed_that_did_not_diverge_is_drawn(copied, sweep):
    folder = copied(sweep / "0", "run", lambda summary: summary.update(diverged={"0": 3}))
    assert gram_matrices(folder, LocalRun(folder, "").summary.written)[1] == 1


def reason(folder) -> str:
    with pytest.raises(LookupError) as caught:
        gram_matrices(folder, LocalRun(folder, "").summary.written)
    return caught.value.args[0]


def test_where_there_are_none_the_reason_is_said(copied, sweep, killed):
    assert reason(killed) == "the run has no tensors.safetensors"
    skipped = copied(sweep / "0", "skipped", lambda summary: summary.update(tensors_reason="too large"))
    (skipped / "tensors.safetensors").unlink()
    assert reason(skipped) == "too large"
    damaged = copied(sweep / "0", "damaged")
    (damaged / "tensors.safetensors").write_bytes(b"no tensors")
    assert reason(damaged).startswith("tensors.safetensors is unreadable: ")
    many = copied(sweep / "0", "many", lambda summary: summary["problem"].update(num_classes=MOST_CLASSES + 1))
    assert f"{MOST_CLASSES + 1} classes" in reason(many)
    lost = copied(sweep / "0", "lost", lambda summary: summary.update(diverged={"0": 1, "1": 1, "2": 1}))
    assert reason(lost) == "all seeds diverged"


def test_means_that_are_all_zero_have_no_gram_matrix_and_the_chart_says_so(copied, sweep):
    folder = copied(sweep / "0", "zero")
    tensors = load_file(folder / "tensors.safetensors")
    save_file({name: t if name == "labels" else t * 0 for name, t in tensors.items()}, folder / "tensors.safetensors")
    grams, _ = gram_matrices(folder, LocalRun(folder, "").summary.written)
    assert all(gram.matrix is None for gram in grams)
    assert "all class means are zero" in gram_chart(grams[0], ["a", "b", "c"], relu=True).label

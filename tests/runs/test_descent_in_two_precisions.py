"""`descent.precision=auto` in a run: what it says of itself, that it goes on as it was, and where it is refused."""

import pytest
from configurations import PLAIN, configured, perform
from safetensors.torch import load_file

from pipeline.dufm import descent_native
from pipeline.runs import solving
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.interruption import Interrupted, interruption
from pipeline.storage.record import read_record, read_summary

SETTINGS = PLAIN | {
    "protocol.name": "frozen_features",
    "data.classes": [0, 1, 2],
    "data.samples_per_class": 10,
    "backbone.hidden": [8, 6],
    "backbone.epochs": 0,
    "head.depth": 1,
    "head.activation": "linear",
    "head.loss": "cross_entropy",
    "head.weight_decay": 0.02,
    "descent.steps": 2600,
    "descent.lr": 0.5,
    "descent.seeds": 2,
    "descent.records_per_decade": 5,
    "descent.precision": "auto",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("auto") / "run"
    perform(folder, SETTINGS)
    return folder


@pytest.mark.skipif(descent_native.library() is None, reason="no working C++ compiler")
def test_the_summary_says_from_which_step_each_seed_was_in_float64(finished):
    steps = read_summary(finished)["float64_from"]
    assert set(steps) == {"0", "1"} and all(
        step == 2470 or (0 < step < 2470 and step % 500 == 0) for step in steps.values()
    )


def test_it_ends_where_float64_does_and_only_it_speaks_of_precision(finished, tmp_path):
    perform(tmp_path / "double", SETTINGS | {"descent.precision": "float64"})
    summary, double = read_summary(finished), read_summary(tmp_path / "double")
    assert summary["loss"]["total"] == pytest.approx(double["loss"]["total"], rel=1e-10)
    assert "float64_from" not in double
    assert load_file(finished / "tensors.safetensors")["weights/1"].element_size() == 8


def test_interrupted_on_its_way_it_ends_with_the_same_bytes(finished, tmp_path, monkeypatch):
    switch, measure = max(read_summary(finished)["float64_from"].values()), solving._measure

    def signalled(run, stage, step, *more):
        interruption.received = 15 if switch < step < 2600 else 0
        return measure(run, stage, step, *more)

    with monkeypatch.context() as patched:
        patched.setattr(interruption, "received", 0)
        patched.setattr(solving, "_measure", signalled)
        with pytest.raises(Interrupted):
            perform(tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run" / "tensors.safetensors").exists()
    perform(tmp_path / "run", SETTINGS)
    assert read_record(tmp_path / "run").equals(read_record(finished))
    tensors = [folder / "tensors.safetensors" for folder in (tmp_path / "run", finished)]
    assert tensors[0].read_bytes() == tensors[1].read_bytes()
    assert read_summary(tmp_path / "run")["float64_from"] == read_summary(finished)["float64_from"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol.name": "dufm", "head.inputs": "free"}, "protocol=dufm has none"),
        ({"protocol.name": "end_to_end"}, "protocol=end_to_end has none"),
        ({"head.inputs": "free"}, "head.inputs=free"),
        ({"head.bias": "last"}, "head.bias=last"),
        ({"head.loss": "supervised_contrastive"}, "head.loss=supervised_contrastive"),
    ],
)
def test_elsewhere_it_is_refused_in_one_sentence(change, said):
    with pytest.raises(ConfigError, match=rf"^descent\.precision=auto .*{said}.*; allowed: float64, float32\.$"):
        configured(SETTINGS | change)

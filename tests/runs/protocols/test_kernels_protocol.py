"""Kernels of the rows that a run draws, without training."""

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from computing import computed, on_mixture
from configurations import configured

from pipeline.data import load_images
from pipeline.runs.inputs import Inputs, prepare
from pipeline.runs.protocols import protocol_named
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_summary

kernels = import_module("pipeline.runs.protocols.kernels")
CLOUDS = {"data.means": "shared_axis", "data.std": 0.5, "data.dim": 3}


def table(record):
    return record.pivot(index="seed", columns="layer", values="value")


def test_every_draw_is_the_run_of_its_seed(tmp_path):
    both = table(computed("kernels", tmp_path / "both", {**CLOUDS, "protocol.repeats": 2, "seed": 4}))
    second = table(computed("kernels", tmp_path / "second", {**CLOUDS, "seed": 5}))
    assert [*both.index] == [4, 5] and both.loc[5].equals(second.loc[5]) and not both.loc[4].equals(both.loc[5])
    facts = read_summary(tmp_path / "second")["kernels"]
    assert facts == pytest.approx(second.loc[5].to_dict(), rel=1e-12)


def test_of_the_data_it_is_dnc1_of_the_rows_and_of_a_kernel_that_of_random_features(tmp_path):
    found = table(computed("kernels", tmp_path, CLOUDS)).loc[0]
    wanted = {"num_classes": 2, "dim": 3, "means": "shared_axis", "std": 0.5}
    images = load_images("mixture", samples_per_class=6, **wanted)
    rows, labels = images.train.images.flatten(1).double(), images.train.labels
    hidden = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 3**0.5

    def dnc1(features):
        means = torch.stack([features[labels == label].mean(0) for label in range(2)])
        within = (features - means[labels]).square().sum() / len(features)
        return float(within / ((means - features.mean(0)).square().sum() / 2))

    assert found["inputs"] == pytest.approx(dnc1(rows), rel=1e-9)
    assert found["relu_nngp"] == pytest.approx(dnc1((rows @ hidden.T).relu()), rel=0.02)
    assert found["erf_nngp"] == pytest.approx(dnc1(torch.erf(rows @ hidden.T)), rel=0.02)


def test_on_a_line_with_the_classes_on_both_sides_of_zero_ntk_of_relu_is_as_collapsed_as_nngp(tmp_path):
    found = table(computed("kernels", tmp_path, {**CLOUDS, "data.dim": 1})).loc[0]
    assert found["relu_ntk"] == pytest.approx(found["relu_nngp"], rel=1e-9)
    assert found["erf_ntk"] > 1.5 * found["erf_nngp"]


def test_the_adapted_kernel_is_measured_where_a_width_is_given_and_undefined_where_it_is_not_found(
    tmp_path, monkeypatch
):
    adapted = {**CLOUDS, "protocol.adaptive_width": 500.0}
    found = table(computed("kernels", tmp_path / "found", adapted)).loc[0]
    assert found[kernels.ADAPTED] < found["erf_nngp"]
    assert kernels.ADAPTED not in table(computed("kernels", tmp_path / "none", CLOUDS))

    def lost(*arguments, **more):
        raise ValueError("no adaptive kernel was found")

    monkeypatch.setattr(kernels, "adaptive_kernel", lost)
    lost_value = table(computed("kernels", tmp_path / "lost", adapted)).loc[0]
    assert torch.tensor(lost_value[kernels.ADAPTED]).isnan() and lost_value["erf_nngp"] == found["erf_nngp"]
    assert read_summary(tmp_path / "lost")["kernels"][kernels.ADAPTED] is None


def test_networks_are_trained_on_the_first_draws_and_begin_near_the_nngp(tmp_path):
    trained = {**CLOUDS, "protocol.network_width": 20_000, "protocol.network_epochs": 2, "protocol.network_lr": 1e-5}
    found = table(computed("kernels", tmp_path, trained | {"protocol.repeats": 2, "protocol.network_draws": 1}))
    for activation in ("relu", "erf"):
        assert found.loc[0, f"{activation}_start"] == pytest.approx(found.loc[0, f"{activation}_nngp"], rel=0.05)
        assert found.loc[0, f"{activation}_net"] != found.loc[0, f"{activation}_start"]
    assert found.loc[1, ["relu_net", "erf_mean_field"]].isna().all() and found.loc[1, "erf_nngp"] > 0


def test_more_rows_than_memory_are_refused(monkeypatch):
    config = configured(on_mixture("kernels", {}))
    inputs = prepare(config)
    monkeypatch.setattr("pipeline.runtime.memory.machine_memory", lambda device: 1000)
    with pytest.raises(ConfigError, match="kernels of 12 training samples need at least"):
        protocol_named("kernels").check_inputs(config, inputs)


@pytest.mark.parametrize("name", ["kernels", "shallow"])
def test_texts_are_refused(name):
    with pytest.raises(ConfigError, match=f"holds text, does not go with protocol={name}; allowed: a data set of"):
        protocol_named(name).check_inputs(configured(on_mixture(name, {})), Inputs(SimpleNamespace(kind="text")))

"""Mean-field networks of several seeds: what is recorded, what is found again, and what is refused."""

import pytest
import torch
from computing import computed, on_mixture
from configurations import configured, perform
from safetensors.torch import load_file

from pipeline.data import load_images
from pipeline.metrics import mean_field_balancedness, nc1_wm
from pipeline.runs.inputs import prepare
from pipeline.runs.protocols import protocol_named
from pipeline.runs.training.mean_field import Descent
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.storage.record import read_record, read_summary

SMALL = {"data.dim": 3, "data.means": "shared_axis", "protocol.neurons": 8, "protocol.num_features": 4}
SMALL |= {"optimizer.momentum": 0.0, "optimizer.lr": 0.5, "backbone.epochs": 3, "backbone.batch_size": 4}


def ends(record):
    last = record[record.step == 3]
    return last.pivot(index="seed", columns="metric", values="value")


def test_every_seed_is_a_run_of_its_own_and_measures_are_those_of_the_kept_network(tmp_path):
    both = ends(computed("mean_field", tmp_path / "both", {**SMALL, "protocol.repeats": 2, "seed": 4}))
    second = ends(computed("mean_field", tmp_path / "second", {**SMALL, "seed": 5}))
    assert [*both.index] == [4, 5] and both.loc[5].equals(second.loc[5]) and not both.loc[4].equals(both.loc[5])
    kept = {
        name.rpartition("/")[2]: value[0] for name, value in load_file(tmp_path / "second/tensors.safetensors").items()
    }
    images = load_images("mixture", samples_per_class=6, num_classes=2, dim=3, means="shared_axis", test=40, seed=5)
    rows = images.train.images.flatten(1) / 3**0.5
    features = torch.tanh(rows @ kept["directions"].T) @ kept["neurons"] / 8
    targets = torch.eye(2)[images.train.labels]
    found = second.loc[5]
    assert found["nc1_wm"] == pytest.approx(float(nc1_wm(features, images.train.labels, 2)), rel=1e-5)
    assert found["train_loss"] == pytest.approx(
        float((features @ kept["weight"] - targets).square().sum() / 24), rel=1e-5
    )
    assert found["balancedness"] == pytest.approx(float(mean_field_balancedness(kept["neurons"], kept["weight"])))
    assert 0 < found["stationary_nc1_wm"] < 1
    facts = read_summary(tmp_path / "second")["mean_field"]
    assert facts["nc1_wm"] == pytest.approx(found["nc1_wm"])


def test_after_a_failure_kept_seeds_are_not_trained_again(tmp_path, monkeypatch):
    settings, train, trained = on_mixture("mean_field", SMALL | {"protocol.repeats": 2}), Descent.train, []

    def counting(self, network, rows, targets, seed):
        trained.append(seed)
        if trained == [0, 1]:
            raise RunError("power cut")
        return train(self, network, rows, targets, seed)

    monkeypatch.setattr(Descent, "train", counting)
    with pytest.raises(RunError, match="power cut"):
        perform(tmp_path / "cut", settings)
    perform(tmp_path / "cut", settings)
    assert trained == [0, 1, 1]
    perform(tmp_path / "whole", settings)
    assert read_record(tmp_path / "cut").equals(read_record(tmp_path / "whole"))


def test_without_decay_of_neurons_the_stationary_features_are_undefined(tmp_path):
    found = ends(computed("mean_field", tmp_path, {**SMALL, "protocol.neuron_decay": 0.0}))
    assert found.stationary_nc1_wm.isna().all() and found.nc1_wm.notna().all()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"optimizer.name": "adam"}, "optimizer=adam does not go with protocol=mean_field, .*; allowed: sgd"),
        ({"optimizer.schedule": "one_cycle"}, "one_cycle does not go with protocol=mean_field; allowed: cosine"),
        (
            {"protocol.temperature": 0.1, "optimizer.momentum": 0.9},
            "temperature=0.1 does not go with optimizer.momentum",
        ),
        ({"protocol.neurons": 0}, "protocol.neurons=0 is out of range"),
        ({"protocol.last_layer": "loose"}, "protocol.last_layer"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed, said):
    with pytest.raises(ConfigError, match=said):
        configured(on_mixture("mean_field", SMALL | changed))


def test_fewer_features_than_classes_are_refused():
    config = configured(on_mixture("mean_field", SMALL | {"protocol.num_features": 1}))
    with pytest.raises(ConfigError, match="num_features=1 is out of range; allowed: an integer >= 2"):
        protocol_named("mean_field").check_inputs(config, prepare(config))


def test_a_training_that_diverges_says_so(tmp_path):
    with pytest.raises(RunError, match="training diverged: features of epoch"):
        computed("mean_field", tmp_path, {**SMALL, "optimizer.lr": 1e30, "protocol.phi": "relu"})

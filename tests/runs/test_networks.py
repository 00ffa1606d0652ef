"""`protocol=network`: trained and measured under its classifier, and states of a network in files of others."""

import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from torch import nn

from pipeline.config import conf_folder
from pipeline.config.messages import register
from pipeline.metrics import layer_metrics
from pipeline.networks import build_backbone
from pipeline.networks.beside import axis_of, naturally, position_in
from pipeline.networks.links import CLASSIFIER, find_links
from pipeline.runs import execution, networks
from pipeline.runs.checking import checked
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare
from pipeline.runtime.errors import ConfigError, RunError
from pipeline.storage.classes import read_classes
from pipeline.storage.record import read_record, read_summary

SMALL = ["protocol=network", "data=digits", "data.classes=[0,1,2]", "data.samples_per_class=12", "backbone=mlp"]
SMALL += ["backbone.hidden=[8,6]", "backbone.epochs=3", "backbone.loss=cross_entropy", "logger=none", "trainer=cpu"]
SMALL += ["trainer.threads=1", "record.figures=false"]


@pytest.fixture(scope="module")
def configured():
    """What the command would run of these overrides, or its refusal."""
    register()

    def make(*overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
            return checked(compose("main", list(overrides)))

    return make


def performed(configured, folder, *overrides):
    config = configured(*SMALL, *overrides)
    execute(config, prepare(config), folder)
    return read_summary(folder), read_record(folder)


def test_the_classifier_is_the_last_place_and_its_weight_is_measured(configured, tmp_path):
    summary, record = performed(configured, tmp_path)
    last = summary["backbone_layers"][-1]
    assert (last["layer"], last["tap"]) == ("classifier", "pre")
    kept = load_file(tmp_path / "tensors.safetensors")
    assert kept["features/1"].shape == (36, 6) and kept["weights/1"].shape == (3, 6) and kept["bias/1"].shape == (3,)
    known = layer_metrics(kept["features/1"], kept["labels"], 3, kept["weights/1"])
    for name in ("dnc1", "dnc3", "nc3_duality", "rank_weight"):
        assert last[name][0] == pytest.approx(float(known[name]), rel=1e-6)
    hidden = next(place for place in summary["backbone_layers"] if place["layer"].endswith("hidden1") and place["dnc3"])
    state = load_file(tmp_path / "checkpoints" / "backbone.safetensors")
    inner, outer = state["network.hidden2.0.weight"].double(), state["classifier.weight"].double()
    product = outer.mT @ outer - inner @ inner.mT
    expected = torch.linalg.matrix_norm(product) / torch.linalg.matrix_norm(inner @ inner.mT)
    assert hidden["balancedness"][0] == pytest.approx(float(expected), rel=1e-5)
    assert set(record.stage) == {"backbone"} and record.step.max() == 3
    assert summary["accuracy"]["train"] and summary["tensors"]


def test_measured_every_so_many_epochs_and_at_both_ends(configured, tmp_path):
    _, record = performed(configured, tmp_path, "backbone.epochs=5", "protocol.every=2")
    assert sorted(set(record.step)) == [0, 2, 4, 5]


def test_states_of_other_programs_are_measured_in_natural_order_by_their_epochs(configured, tmp_path):
    states = tmp_path / "states"
    states.mkdir()
    for epoch in (10, 9):
        torch.manual_seed(epoch)
        own = build_backbone("mlp", (1, 8, 8), hidden=[8, 6], seed=epoch).network
        held = {f"net.{name}": value for name, value in own.state_dict().items()}
        held["net.fc.weight"], held["net.fc.bias"] = torch.randn(3, 6), torch.randn(3)
        torch.save({"model": held, "epoch": epoch}, states / f"at_{epoch}.pt")
    summary, record = performed(configured, tmp_path / "run", f"backbone.checkpoints={states}/at_*.pt")
    assert sorted(set(record.step)) == [9, 10] and summary["states"]["unit"] == "epoch"
    assert [name.rpartition("/")[2] for name in summary["states"]["files"]] == ["at_9.pt", "at_10.pt"]
    kept = load_file(tmp_path / "run" / "tensors.safetensors")
    outputs = kept["features/1"].float() @ kept["weights/1"].mT + kept["bias/1"]
    share = (outputs.argmax(1) == kept["labels"]).double().mean()
    assert summary["accuracy"]["train"][0] == pytest.approx(float(share))
    assert summary["backbone_layers"][-1]["dnc3"][0] is not None


class Whole(nn.Module):
    """A network that ends in its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(64, 5), nn.ReLU())
        self.fc = nn.Linear(5, 3)

    def forward(self, images):
        return self.fc(self.hidden(images.flatten(1)))


def test_a_network_that_ends_in_its_own_classifier_is_measured_where_that_begins(configured, tmp_path):
    torch.manual_seed(0)
    torch.save(Whole().state_dict(), tmp_path / "whole.pt")
    which = ["backbone=custom", f"backbone._target_={__name__}.Whole", f"backbone.checkpoints={tmp_path}/whole.pt"]
    config = configured(*[text for text in SMALL if "hidden" not in text], *which)
    execute(config, prepare(config), tmp_path / "run")
    places = read_summary(tmp_path / "run")["backbone_layers"]
    assert [place["layer"] for place in places] == ["network.hidden", "network.hidden", "classifier"]
    assert places[-1]["dnc1"] == pytest.approx(places[-2]["dnc1"]) and places[-1]["dnc3"] == places[-2]["dnc3"]


@pytest.mark.parametrize(
    ("pattern", "words"), [("none_*.pt", "matches no file"), ("", "is a folder"), ("at_*.pt", "does not fit")]
)
def test_states_that_cannot_be_measured_are_refused_in_a_sentence(pattern, words, configured, tmp_path):
    torch.save({"hidden1.0.weight": torch.zeros(2, 2)}, tmp_path / "at_1.pt")
    with pytest.raises(ConfigError, match=f"backbone.checkpoints=.* {words}"):
        prepare(configured(*SMALL, f"backbone.checkpoints={tmp_path}/{pattern}"))
    with pytest.raises(ConfigError, match="does not go with protocol=frozen_features; allowed: protocol=network"):
        configured(*SMALL[1:], f"backbone.checkpoints={tmp_path}/{pattern}", "protocol=frozen_features")


def test_what_checkpoints_count(tmp_path):
    assert axis_of([{"epoch": 3, "step": 5}, {"epoch": 4, "step": 6}]) == ("epoch", [3, 4])
    assert axis_of([{"epoch": 3, "step": 5}, {"epoch": 3, "step": 6}]) == ("step", [5, 6])
    assert axis_of([{"epoch": 3}, {}]) == ("checkpoint", [1, 2])
    torch.save({"w": torch.zeros(1), "epoch": 4}, tmp_path / "a.pt")
    torch.save({"w": torch.zeros(1)}, tmp_path / "epoch=7-step=90.pt")
    assert position_in(tmp_path / "a.pt", "key") == {"epoch": 4}
    assert position_in(tmp_path / "epoch=7-step=90.pt", "key") == {"epoch": 7, "step": 90}
    assert sorted([tmp_path / "n_10", tmp_path / "n_9"], key=naturally)[0].name == "n_9"


def test_links_of_an_mlp_follow_its_layers():
    links = find_links(build_backbone("mlp", (1, 4, 4), hidden=[8, 7, 6]))
    assert links.entered == {
        "network.hidden1": "network.hidden2.0",
        "network.hidden2": "network.hidden3.0",
        "network.hidden3": CLASSIFIER,
    }
    assert links.following == {
        "network.hidden1.0": "network.hidden2.0",
        "network.hidden2.0": "network.hidden3.0",
        "network.hidden3.0": CLASSIFIER,
    }
    assert links.own_classifier is None
    assert json.dumps(dict(links.entered))


def test_a_run_over_states_goes_on_after_the_last_one_it_has_kept(configured, tmp_path, monkeypatch):
    (tmp_path / "states").mkdir()
    for number in (1, 2, 3):
        own = build_backbone("mlp", (1, 8, 8), hidden=[8, 6], seed=number).network
        torch.save(own.state_dict(), tmp_path / "states" / f"{number}.pt")
    which = [f"backbone.checkpoints={tmp_path}/states/*.pt", "trainer.checkpoint_seconds=0"]
    _, whole = performed(configured, tmp_path / "whole", *which)
    assert sorted(set(whole.step)) == [1, 2, 3] and set(whole.stage) == {"checkpoints"}
    measured, plain = [], networks.measure_backbone

    def stumble(*arguments):
        measured.append(arguments)
        if len(measured) == 3:
            raise RunError("a stumble")
        return plain(*arguments)

    monkeypatch.setattr(networks, "measure_backbone", stumble)
    with pytest.raises(RunError):
        performed(configured, tmp_path / "run", *which)
    summary, record = performed(configured, tmp_path / "run", *which)
    assert len(measured) == 4 and record.equals(whole) and summary["status"] == "completed"


def test_every_position_of_a_text_is_a_row_with_the_token_that_follows(configured, tmp_path):
    words = "the cat sat on the mat and the dog sat on the cat while a bird sang . "
    (tmp_path / "own.txt").write_text(words * 12)
    own = ["data=text", f"data.root={tmp_path}/own.txt", "data.vocabulary=9", "data.window=8", "measure.positions=true"]
    own += ["backbone=transformer", "backbone.width=8", "backbone.depth=2", "backbone.heads=2", "backbone.epochs=2"]
    own += ["optimizer=adamw", "optimizer.schedule=one_cycle", "optimizer.lr=0.01", "protocol.every=2"]
    rest = [text for text in SMALL if "hidden" not in text and "data" not in text]
    config = configured(*rest, *own)
    inputs = prepare(config)
    execute(config, inputs, tmp_path / "run")
    summary, labels = read_summary(tmp_path / "run"), inputs.images.train.labels
    places = [(place["layer"], place["tap"]) for place in summary["backbone_layers"]]
    assert places == [("network.blocks.0", "post"), ("network.blocks.1", "post"), ("classifier", "pre")]
    kept = load_file(tmp_path / "run" / "tensors.safetensors")
    assert len(kept["features/1"]) == len(kept["labels"]) == int((labels >= 0).sum()) < labels.numel()
    known = layer_metrics(kept["features/1"], kept["labels"], 9, kept["weights/1"])
    last = summary["backbone_layers"][-1]
    assert [last[name][0] for name in ("dnc1", "dnc3")] == pytest.approx([float(known[n]) for n in ("dnc1", "dnc3")])
    outputs = kept["features/1"].float() @ kept["weights/1"].mT
    share = (outputs.argmax(1) == kept["labels"]).double().mean()
    assert summary["accuracy"]["train"][0] == pytest.approx(float(share))


MANY = ["data=mixture", "data.classes=null", "data.num_classes=21", "data.dim=21", "data.samples_per_class=3"]
MANY += ["backbone.hidden=[6]", "backbone.epochs=2", "measure.families=[core,cosine,kernels]"]


def test_many_classes_have_a_table_which_a_run_that_goes_on_writes_once(configured, tmp_path, monkeypatch):
    """The values of each class are those that the record has the mean of; a crash after training adds no line."""
    config = configured(*SMALL, *MANY)
    with monkeypatch.context() as broken:
        broken.setattr(execution, "write_tensors", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            execute(config, prepare(config), tmp_path)
    first = (tmp_path / "classes.csv").read_bytes()
    execute(config, prepare(config), tmp_path)
    assert (tmp_path / "classes.csv").read_bytes() == first
    record, table = read_record(tmp_path), read_classes(tmp_path)
    assert not record.metric.str.contains("/class=").any()
    assert not table.duplicated(["stage", "seed", "layer", "tap", "class"]).any() and set(table.step) == {2}
    last = record[(record.step == 2) & (record.layer == "classifier")].set_index("metric").value
    own = table[table.layer == "classifier"]
    assert own["class"].tolist() == list(range(21)) and set(own.samples) == {3}
    for name in ("cos_intra", "test_cos_intra", "cos_intra_off", "cos_centred_intra", "dual"):
        mean = name if name.endswith("off") else f"{name}_mean"
        assert own[name].mean() == pytest.approx(last[mean], rel=1e-9), name


def test_a_few_classes_are_rows_by_their_names(configured, tmp_path):
    summary, record = performed(configured, tmp_path, "measure.families=[core,cosine]")
    own = [f"cos_intra/class={name}" for name in ("0", "1", "2")]
    assert set(own) <= set(record.metric) and not (tmp_path / "classes.csv").exists()
    place = summary["backbone_layers"][-1]
    assert place["cos_intra_mean"][0] == pytest.approx(sum(place[name][0] for name in own) / 3)

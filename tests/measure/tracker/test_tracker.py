"""The tracker measures what is there, and the training around it does not notice."""

import importlib.util
import os
import random
import re
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import tracker_worker
from commands import commands, script
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pipeline import CollapseTracker
from pipeline.measure.tracker import measurement
from pipeline.metrics import ClassStatistics, layer_metrics, metrics, registry

ROOT = Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("definitions", ROOT / "tests/metrics/brute_force.py")
definitions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(definitions)

OF_FEATURES = ("dnc1", "nc1_pinv", "cdnv", "dnc2", "nc2_frame", "nc2_simplex")
EVERYTHING = list(registry.families()[registry.CORE].metrics)
CLASSES, SAMPLES = 3, 41


class Cnn(nn.Module):
    """Two stages with batch norm, an in-place ReLU and dropout, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
        self.layer2 = nn.Sequential(nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, CLASSES)
        self.idle = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.drop(self.layer2(self.layer1(images)).mean((2, 3))))


def cnn() -> Cnn:
    torch.manual_seed(0)
    return Cnn().double()


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    sizes = (64, 9, 7, CLASSES)
    layers = [nn.Flatten()] + [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double()


@pytest.fixture
def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    noise = torch.randn(SAMPLES, 1, 8, 8, generator=generator, dtype=torch.float64)
    return TensorDataset(noise + torch.randn(CLASSES, 1, 8, 8, generator=generator).double()[labels], labels)


def value_at(model: nn.Module, module: nn.Module, side: str, images: Tensor) -> Tensor:
    """What enters or leaves a module in eval mode."""
    caught: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda _, inputs, output: caught.append(inputs[0] if side == "pre" else output)
    )
    training = model.training
    model.eval()(images)
    model.train(training)
    handle.remove()
    (value,) = caught
    return value.detach()


def by_hand(model: nn.Module, module: nn.Module, side: str, images: Tensor) -> np.ndarray:
    """The same as features, maps averaged over space."""
    value = value_at(model, module, side, images)
    return (value.mean((2, 3)) if value.ndim == 4 else value).numpy()


def number_of_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def assert_close(values: dict[str, float], expected: dict[str, float], rtol: float = 1e-10) -> None:
    assert values.keys() == expected.keys()
    np.testing.assert_allclose(list(values.values()), list(expected.values()), rtol=rtol)


@pytest.mark.parametrize(
    "build, layers, places",
    [
        (cnn, ["layer?", "fc:pre"], {"layer1": "post", "layer2": "post", "fc": "pre"}),
        (mlp, ["2", "4:post", "5:pre"], {"2": "post", "4": "post", "5": "pre"}),
    ],
)
def test_values_are_those_of_features_collected_by_hand(build, layers, places, data) -> None:
    model, (images, labels) = build(), data.tensors
    tracker = CollapseTracker(model, CLASSES, layers)
    tracker.measure(DataLoader(data, batch_size=7))
    expected = {}
    for layer, side in places.items():
        arguments = (by_hand(model, model.get_submodule(layer), side, images), labels.numpy(), CLASSES)
        means = definitions.class_means(*arguments)
        expected |= {f"{layer}/{side}/{name}": getattr(definitions, name)(*arguments) for name in OF_FEATURES}
        expected |= {f"{layer}/{side}/rank_means": definitions.rank(means)}
        expected |= {f"{layer}/{side}/stable_rank_means": definitions.stable_rank(means)}
        units = value_at(model, model.get_submodule(layer), side, images)
        expected |= {f"{layer}/{side}/active_units": (units != 0).double().mean().item()}
        if side == "pre":
            weight = model.get_submodule(layer).weight.detach().numpy()
            expected |= {f"{layer}/{side}/dnc3": definitions.dnc3(weight, *arguments)}
            expected |= {f"{layer}/{side}/nc3_duality": definitions.nc3_duality(weight, *arguments)}
    assert_close({key: tracker.latest[key] for key in expected}, expected)
    assert tracker.undefined == {}


def expected_of(model: nn.Module, own: TensorDataset, training: TensorDataset, prefix: str = "") -> dict[str, float]:
    """Every metric of what enters the last layer, by the function of all rows at once."""
    rows, of_training = (torch.from_numpy(by_hand(model, model.fc, "pre", data.tensors[0])) for data in (own, training))
    reference = ClassStatistics.from_features(of_training, training.tensors[1], CLASSES)
    decisions = model.eval()(own.tensors[0]).argmax(1)
    found = layer_metrics(
        rows, own.tensors[1], CLASSES, model.fc.weight, decisions=decisions, reference=reference, nearest=True
    )
    names = [name for name in found if not prefix or metrics()[name].of_rows]
    return {f"fc/pre/{prefix}{name}": float(found[name]) for name in names}


@pytest.mark.parametrize("kept", [measurement.KEPT_BYTES, 0])
@pytest.mark.parametrize("covariance", [True, False])
def test_everything_can_be_asked_for_and_another_split_by_the_means_of_the_first(
    covariance: bool, kept: int, data, monkeypatch
) -> None:
    monkeypatch.setattr(measurement, "KEPT_BYTES", kept)  # by a second pass, if none are kept
    model = cnn()
    other = TensorDataset(data.tensors[0].flip(0) * 0.7 + 0.3, data.tensors[1])
    shuffled = DataLoader(Noisy(data), batch_size=7, shuffle=True)
    tracker = CollapseTracker(model, CLASSES, "fc:pre", covariance=covariance, metrics=EVERYTHING)
    tracker.measure(DataLoader(data, batch_size=7), test=DataLoader(other, batch_size=6))
    expected = expected_of(model, data, data) | expected_of(model, other, data, registry.TEST)
    assert_close(tracker.latest, expected)
    tracker.measure(shuffled)  # both looks are at the same noise, and at the same order of samples
    assert tracker.undefined == {} and tracker.latest["fc/pre/nc1_pinv"] > 0


def test_passes_of_ones_own_are_judged_too_while_there_is_room(data, monkeypatch) -> None:
    model = cnn().eval()
    tracker = CollapseTracker(model, CLASSES, "fc:pre", metrics=EVERYTHING)
    for images, labels in DataLoader(data, batch_size=6):
        with tracker.listen(labels):
            model(images)
    tracker.compute()
    assert_close(tracker.latest, expected_of(model, data, data))
    monkeypatch.setattr(measurement, "KEPT_BYTES", 0)
    with tracker.listen(data.tensors[1]):
        model(data.tensors[0])
    with pytest.raises(ValueError, match=r"a second time.* have no room for more than .*use measure\(loader\)"):
        tracker.listen(data.tensors[1]).__enter__()


def test_what_a_second_look_lacks_is_said(data, monkeypatch) -> None:
    class Named(Cnn):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"outputs": super().forward(images)}

    loader = DataLoader(data, batch_size=7)
    with pytest.raises(ValueError, match=r"metrics must be among dnc1, .*, got 'dnc9' \(did you mean dnc.\?\)"):
        CollapseTracker(cnn(), CLASSES, "fc:pre", metrics=["dnc9"])
    with pytest.raises(ValueError, match=r"outputs as a float tensor \(N, K\), got dict: pass decide="):
        CollapseTracker(Named().double(), CLASSES, "fc:pre", metrics=["nc4"]).measure(loader)
    tracker = CollapseTracker(
        Named().double(), CLASSES, "fc:pre", metrics=["nc4"], decide=lambda found: found["outputs"]
    )
    tracker.measure(loader)
    assert 0 <= tracker.latest["fc/pre/nc4"] <= 1
    monkeypatch.setattr(measurement, "KEPT_BYTES", 0)
    with pytest.raises(ValueError, match="need the same ones, got 41 samples and then 0: pass a loader that can be"):
        CollapseTracker(cnn(), CLASSES, "fc:pre", metrics=["ncm_accuracy"]).measure(iter(list(loader)))


def test_odd_batches_and_passes_of_ones_own_equal_one_batch(data) -> None:
    model = cnn().eval()
    tracker = CollapseTracker(model, CLASSES, ["layer?", "fc:pre"])
    tracker.measure(DataLoader(data, batch_size=SAMPLES))
    expected = tracker.latest
    tracker.measure(zip(*(tensor.split([1, 17, 2, 21]) for tensor in data.tensors), strict=True))
    assert_close(tracker.latest, expected)
    for images, labels in DataLoader(data, batch_size=6):
        with tracker.listen(labels):
            model(images)
    table = tracker.compute()
    assert_close(tracker.latest, expected)
    assert list(table.value) == list(tracker.latest.values())


def test_tokens_are_averaged_and_dicts_and_other_batches_are_made_pairs_by_split() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return self.embed(ids)

    torch.manual_seed(0)
    model, ids, labels = Tokens(), torch.randint(11, (12, 5)), torch.arange(12) % 2
    tracker = CollapseTracker(model, 2, "embed", split=lambda batch: ({"ids": batch["ids"]}, batch["label"]))
    tracker.measure([{"ids": ids[:7], "label": labels[:7]}, {"ids": ids[7:], "label": labels[7:]}])
    tokens = model.embed.weight.detach().double()[ids]
    expected = definitions.dnc1(tokens.mean(1).numpy(), labels.numpy(), 2)
    np.testing.assert_allclose(tracker.latest["embed/post/dnc1"], expected, rtol=1e-5)  # the model is in float32


class Noisy(Dataset):
    """Augments with the global random states of torch, numpy and python."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = self.data[index]
        return image + torch.rand(()) + np.random.rand() + random.random(), label


@pytest.mark.parametrize("own_generator", [False, True])
def test_weights_trained_with_a_tracker_are_bit_identical(own_generator: bool, data) -> None:
    def trained(measured: bool) -> tuple[dict[str, Tensor], list[bool]]:
        model = cnn()
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(3)
        generator = torch.Generator().manual_seed(5) if own_generator else None
        loader = DataLoader(Noisy(data), batch_size=8, shuffle=True, generator=generator)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        tracker = CollapseTracker(model, CLASSES, ["layer?", "fc:pre"])
        for _ in range(2):
            model.train()
            model.layer1[1].eval()  # one part frozen, as when fine-tuning
            for images, labels in loader:
                optimizer.zero_grad()
                if measured:
                    with tracker.listen(labels):
                        outputs = model(images)
                else:
                    outputs = model(images)
                nn.functional.cross_entropy(outputs, labels).backward()
                if measured and len(labels) < 8:
                    tracker.measure(loader)  # between the gradients and the step that uses them
                optimizer.step()
            if measured:
                tracker.measure(loader)
                tracker.compute()
        return model.state_dict(), [module.training for module in model.modules()]

    (weights, modes), (expected, expected_modes) = trained(True), trained(False)
    assert modes == expected_modes
    assert not all(modes)
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=0)


def test_nothing_stays_hooked_after_a_measurement_or_an_error(data) -> None:
    model = cnn()
    tracker = CollapseTracker(model, CLASSES, ["layer*", "fc:pre"])
    assert number_of_hooks(model) == 0
    tracker.measure(DataLoader(data, batch_size=7))
    assert number_of_hooks(model) == 0
    with pytest.raises(RuntimeError, match="1 channels, but got 2"):
        tracker.measure([(torch.zeros(2, 1, 8), torch.tensor([0, 1]))])
    assert number_of_hooks(model) == 0
    assert all(module.training for module in model.modules())
    assert len(tracker.history.step.unique()) == 1


@pytest.mark.parametrize("compiled", ["wrapped", "in place", "a part"])
def test_compiled_models_are_measured_like_the_plain_one(compiled: str, data) -> None:
    model = cnn()
    tracker = CollapseTracker(model, CLASSES, ["layer?", "layer1.?", "fc:pre"])
    tracker.measure(DataLoader(data, batch_size=7))
    expected = tracker.latest
    called: nn.Module = model
    if compiled == "wrapped":
        called = torch.compile(model, backend="eager")
    elif compiled == "in place":
        model.compile(backend="eager")
    else:
        model.layer1 = torch.compile(model.layer1, backend="eager")
    model.eval()
    called(data.tensors[0])
    tracker = CollapseTracker(called, CLASSES, ["layer?", "layer1.?", "fc:pre"])
    tracker.measure(DataLoader(data, batch_size=7))
    assert_close(tracker.latest, expected)
    with tracker.listen(data.tensors[1]):
        called(data.tensors[0])
    tracker.compute()
    assert_close(tracker.latest, expected)


@pytest.fixture(scope="module")
def lightning_on_two_ranks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    arguments = script(ROOT / "tests/measure/tracker/tracker_worker.py", folder)
    ranks = [
        commands().start(*arguments, folder=folder, environment=os.environ | place | {"LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    done = [rank.end() for rank in ranks]
    assert [rank.code for rank in done] == [0, 0], done
    return folder


def test_two_ranks_agree_with_one_process(lightning_on_two_ranks: Path) -> None:
    model = tracker_worker.Learner()
    model.load_state_dict(torch.load(lightning_on_two_ranks / "weights.pt", weights_only=True))
    tracker = tracker_worker.tracker_of(model)
    tracker.measure(DataLoader(tracker_worker.dataset(), batch_size=23))
    for rank in range(2):
        results = torch.load(lightning_on_two_ranks / f"rank{rank}.pt", weights_only=True)
        asked = results.pop("everything")
        assert len(results) == 4
        for values in results.values():
            assert_close(values, tracker.latest)
        assert_close({key: asked[key] for key in tracker.latest}, tracker.latest)
        alone = CollapseTracker(model, tracker_worker.CLASSES, ["conv", "fc:pre"], metrics=EVERYTHING)
        alone.measure(DataLoader(tracker_worker.dataset()), test=DataLoader(tracker_worker.dataset()))
        assert_close(asked, alone.latest)
    logged = pd.read_csv(lightning_on_two_ranks / "metrics.csv", float_precision="round_trip")
    assert len(logged) == 2
    assert_close(logged.iloc[-1][list(tracker.latest)].to_dict(), tracker.latest)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*`srun` command")
def test_the_lightning_callback_logs_the_numbers_of_the_plain_loop(tmp_path: Path) -> None:
    loader = DataLoader(tracker_worker.dataset(), batch_size=5)
    learner = tracker_worker.Learner()
    optimizer, plain = learner.configure_optimizers(), tracker_worker.tracker_of(learner)
    expected = []
    for epoch in range(4):
        for batch in loader:
            optimizer.zero_grad()
            learner.training_step(batch).backward()
            optimizer.step()
        if epoch % 2:
            plain.measure(loader, step=epoch + 1)
            expected.append(plain.latest)

    learner = tracker_worker.Learner()
    tracker = tracker_worker.tracker_of(learner)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=4, default_root_dir=tmp_path, logger=CSVLogger(tmp_path, "", ""),
        log_every_n_steps=1, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
        callbacks=[tracker.callback(every_n_epochs=2), tracker.callback(loader, every_n_epochs=4, prefix="train/")],
    )  # fmt: skip
    trainer.fit(learner, loader, loader)
    assert tracker.history[: -len(expected[0])].equals(plain.history)
    rows = pd.read_csv(tmp_path / "metrics.csv", float_precision="round_trip").groupby("epoch").first()
    assert list(rows.index) == [1, 3]
    for row, values in zip(rows.to_dict("records"), expected, strict=True):
        assert {key: row[key] for key in values} == values
    assert {key: rows.loc[3, f"train/{key}"] for key in expected[1]} == expected[1]


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*`srun` command", "ignore:.*have no `val_dataloader`"
)
def test_the_lightning_callback_says_what_it_lacks(tmp_path: Path) -> None:
    learner = tracker_worker.Learner()
    tracker = tracker_worker.tracker_of(learner)
    with pytest.raises(ValueError, match="every_n_epochs must be an int of at least 1, got 0"):
        tracker.callback(every_n_epochs=0)
    loader = DataLoader(tracker_worker.dataset(), batch_size=23)
    for validation, limit, why in ((None, 1.0, "no loader"), (loader, 0, "limit_val_batches=0")):
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, callbacks=[tracker.callback()], logger=False,
            log_every_n_steps=1, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
            limit_val_batches=limit,
        )  # fmt: skip
        with pytest.raises(ValueError, match=f"a validation dataloader for the tracker to measure, got none .{why}"):
            trainer.fit(learner, loader, validation)


def test_a_distributed_wrapper_is_looked_through(data) -> None:
    tracker = CollapseTracker(cnn(), CLASSES, "layer?")
    tracker.measure(DataLoader(data, batch_size=7))
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = CollapseTracker(nn.parallel.DistributedDataParallel(cnn()), CLASSES, "layer?")
        wrapped.measure(DataLoader(data, batch_size=7))
    finally:
        distributed.destroy_process_group()
    assert_close(wrapped.latest, tracker.latest)


@pytest.mark.parametrize(
    "pattern, places",
    [
        ("layer*", ["layer1/post", "layer2/post"]),
        ("layer?.0", ["layer1.0/post", "layer2.0/post"]),
        (["fc:pre", "fc"], ["fc/pre", "fc/post"]),
        (["layer[2-9].*", "layer1:pre"], ["layer1/pre", "layer2.0/post", "layer2.1/post", "layer2.2/post"]),
        ("fc:post", ["fc/post"]),
    ],
)
def test_patterns_name_layers_within_one_part_and_are_kept_in_running_order(pattern, places, data) -> None:
    tracker = CollapseTracker(cnn(), CLASSES, pattern)
    tracker.measure(DataLoader(data, batch_size=7))
    assert list(dict.fromkeys(key.rpartition("/")[0] for key in tracker.latest)) == places


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"layers": ["layr1"]}, r"layer pattern 'layr1' matches no module of this Cnn, did you mean 'layer1'"),
        ({"layers": "z*:pre"}, r"'z\*:pre' matches no module of this Cnn, which has: layer1, layer1.0, .*, idle\."),
        ({"layers": "fc:into"}, r"'fc:into' must end in :pre, :post or neither, got :into"),
        ({"layers": []}, "layers must hold at least one pattern"),
        ({"layers": "fc", "num_classes": 1}, "num_classes must be an int of at least 2, got 1"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        CollapseTracker(cnn(), **{"num_classes": CLASSES} | arguments)


def images(n: int) -> Tensor:
    return torch.zeros(n, 1, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize(
    "batch, message",
    [
        ((images(2), torch.tensor([0, 3])), r"labels must lie in 0\.\.2 for num_classes = 3, got 3"),
        ((images(2), torch.tensor([-1, 0])), r"labels must lie in 0\.\.2 for num_classes = 3, got -1"),
        ((images(2), torch.tensor([0.0, 1.0])), r"labels must be an int64 tensor of shape \(N,\), got torch.float32"),
        ((images(2), [0, 1]), r"labels must be an int64 tensor of shape \(N,\), got list"),
        ((images(2), torch.tensor([0, 1, 2])), r"layer 'fc' \(post\): labels must have shape \(2,\), one per sample"),
        ((images(2),), r"a pair \(inputs, labels\), got a tuple of 1: pass split="),
        ({"x": images(2)}, r"a pair \(inputs, labels\), got a dict: pass split="),
        (([images(2)], torch.tensor([0, 1])), "the inputs of a batch must be a tensor or a dict of tensors, got list"),
    ],
)
def test_bad_batches_are_refused_in_a_sentence(batch, message) -> None:
    tracker = CollapseTracker(cnn(), CLASSES, "fc")
    with pytest.raises(ValueError, match=message):
        tracker.measure([batch])


def test_a_layer_that_did_not_run_or_ran_twice_is_named(data) -> None:
    model, (inputs, labels) = cnn(), data.tensors
    with pytest.raises(RuntimeError, match=r"never fired.*'idle' \(post\)"):
        CollapseTracker(model, CLASSES, ["fc", "idle"]).measure(DataLoader(data, batch_size=7))
    tracker = CollapseTracker(model, CLASSES, "fc")
    with (
        pytest.raises(RuntimeError, match=r"layer 'fc' \(post\) ran twice for the same labels"),
        tracker.listen(labels),
    ):
        model(inputs)
        model(inputs)
    with pytest.raises(ValueError, match="not a single batch"):
        tracker.compute()


def test_history_is_tidy_and_says_why_a_value_is_undefined(data) -> None:
    tracker = CollapseTracker(cnn(), CLASSES, ["fc:pre"])
    loader = DataLoader(data, batch_size=7)
    tracker.measure(loader, step=0)
    tracker.measure(loader)
    one_class = [(data.tensors[0][:4], torch.zeros(4, dtype=torch.int64))]
    table = tracker.measure(one_class, step=10)
    history = tracker.history
    assert list(history) == list(table) == ["step", "layer", "tap", "metric", "value"]
    assert list(history.step.unique()) == [0, 1, 10]
    assert tracker.undefined["fc/pre/dnc3"] == tracker.undefined["fc/pre/dnc1"] == "the data hold one class only"
    assert history[(history.step == 10) & (history.metric == "dnc1")].value.isna().all()
    assert table.reset_index(drop=True).equals(history[history.step == 10].reset_index(drop=True))


def test_without_covariance_only_nc1_pinv_is_missing(data) -> None:
    names = []
    for covariance in (True, False):
        tracker = CollapseTracker(cnn(), CLASSES, "fc:pre", covariance=covariance)
        names.append(set(tracker.measure(DataLoader(data, batch_size=7)).metric))
    assert names[0] - names[1] == {"nc1_pinv"} and names[1] < names[0]


def test_plots_draw_the_history_on_the_axes_given_or_on_new_ones(data) -> None:
    from matplotlib import pyplot

    tracker = CollapseTracker(cnn(), CLASSES, ["layer?", "fc:pre"])
    with pytest.raises(ValueError, match="nothing has been measured yet"):
        tracker.plot()
    for _ in range(3):
        tracker.measure(DataLoader(data, batch_size=7))
    figure, (left, right) = pyplot.subplots(1, 2)
    assert tracker.plot("dnc2", ax=left) is left
    lines = {line.get_label(): line for line in left.get_lines()}
    values = tracker.history.query("layer == 'layer2' and metric == 'dnc2'")
    np.testing.assert_array_equal(lines["layer2 post"].get_data(), [values.step, values.value])
    assert lines["fc pre"].get_linestyle() == "--"
    assert tracker.plot_profile("dnc1", ax=right) is right
    assert [label.get_text() for label in right.get_xticklabels()] == ["layer1", "layer2", "fc"]
    drawn = sorted(float(y) for line in right.get_lines() for y in line.get_ydata() if line.get_marker() in "os")
    final = tracker.history.query("step == 3 and metric == 'dnc1'").value
    np.testing.assert_allclose(drawn, sorted(final))
    new = tracker.plot("nc1_pinv").figure
    assert new is not figure
    for name in dict.fromkeys(tracker.history.metric):  # titles, scales and targets are those of the registry
        axes, known = tracker.plot(name), metrics()[name]
        assert (axes.get_title(), axes.get_yscale()) == (known.title, known.scale)
        levels = [line.get_ydata()[0] for line in axes.get_lines() if len(set(line.get_ydata())) == 1]
        drawable = known.target is not None and (known.target > 0 or known.scale == "linear")
        assert not drawable or known.target in levels
        pyplot.close(axes.figure)
    with pytest.raises(ValueError, match=r"metric must be one of dnc1, .*, dnc3, nc3_duality, got 'dnc4'"):
        tracker.plot("dnc4", ax=left)
    pyplot.close("all")


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import pipeline, sys; assert not {'torch', 'numpy', 'pandas'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    with pytest.raises(AttributeError, match="module 'pipeline' has no attribute 'Tracker'"):
        __import__("pipeline").Tracker  # noqa: B018


def test_every_example_of_the_page_runs_in_a_fresh_process_and_prints_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs/tracker.md").read_text()
    examples = re.findall(r"```python\n(.*?)```\n(?:\nprints\n\n```text\n(.*?)```)?", page, re.S)
    assert len(examples) == page.count("```python") == 2
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    loaded = "\nimport sys; print([name for name in ('hydra', 'wandb', 'pytorch_lightning') if name in sys.modules])"
    for (code, stated), imports in zip(examples, ([], ["pytorch_lightning"]), strict=True):
        run = [sys.executable, "-W", "ignore", "-c", code + loaded]
        done = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        *printed, names = done.stdout.strip().splitlines()
        assert printed == stated.strip().splitlines()
        assert names == str(imports)
    assert (tmp_path / "tracker.png").read_bytes().startswith(b"\x89PNG")


def test_classes_with_too_few_samples_are_left_out_and_told_once(data, caplog) -> None:
    images, labels = data.tensors
    few = torch.cat([(labels == 0).nonzero()[:1, 0], (labels != 0).nonzero()[:, 0]])
    model, loader = cnn(), DataLoader(TensorDataset(images[few], labels[few]), batch_size=5)
    tracker = CollapseTracker(model, CLASSES, "fc:pre", min_samples=2)
    for _ in range(2):
        tracker.measure(loader)
    assert tracker.latest["fc/pre/classes_counted"] == CLASSES - 1 and tracker.latest["fc/pre/classes_left_out"] == 1
    kept = labels != 0
    rows = torch.from_numpy(by_hand(model, model.fc, "pre", images[kept]))
    expected = layer_metrics(rows, labels[kept] - 1, CLASSES - 1)["dnc1"]
    assert tracker.latest["fc/pre/dnc1"] == pytest.approx(float(expected), rel=1e-6)
    told = [record.message for record in caplog.records if "are left out" in record.message]
    assert told == [f"1 of {CLASSES} classes have fewer than 2 samples and are left out of the metrics: 0"]

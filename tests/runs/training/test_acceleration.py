"""Fast ways to train give what the plain way gives, to stated tolerances, and what cannot be had is done without."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from float64_training import assert_as_near, trained_in_float64
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import Config, settings
from pipeline.data import ImageData, load_images
from pipeline.dufm.objectives import load_objective
from pipeline.measure.layers import measure_backbone
from pipeline.networks import Backbone, build_backbone
from pipeline.runs.inputs import Inputs
from pipeline.runs.run import Run
from pipeline.runs.training import acceleration, learners, native_norm
from pipeline.runs.training.acceleration import (
    decide,
    determinism,
    float32_products,
    has_native_bf16,
    training_flops,
)
from pipeline.runs.training.checkpoints import TrainingCheckpoints
from pipeline.runs.training.learners import Classifier, DufmNetwork, DufmPenalty
from pipeline.runs.training.training import train
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.randomness import generator
from pipeline.storage.record import Record

CPU = torch.device("cpu")
BATCH = 40  # of 100 images, so that the last batch is smaller


class Small(nn.Sequential):
    """Convolutions and a batch norm, whose state a trial of the compiler must not touch.

    Without the kink of a ReLU, at which trainings that differ by their rounding part.
    """

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.GELU(), nn.Conv2d(6, 5, 3))


class Dropping(nn.Sequential):
    """With dropout, which draws from the global generator."""

    def __init__(self) -> None:
        super().__init__(*Small(), nn.Dropout(0.1))


class Viewing(nn.Module):
    """A network that cannot take channels_last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.linear = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 3, padding=1), nn.Linear(256, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(self.stem(images))
        return self.linear(maps.view(len(maps), -1))


@pytest.fixture(scope="module")
def images() -> ImageData:
    return load_images("digits", classes=[0, 1], samples_per_class=50)


def config(**changes) -> Config:
    names = {"data.name": "digits", "backbone.name": "mlp", "optimizer.name": "sgd", "logger.name": "none"}
    names |= {"protocol.name": "frozen_features", "trainer.accelerator": "cpu", "trainer.compile": "off"}
    names |= {"backbone.epochs": 2, "backbone.batch_size": BATCH}
    cfg = OmegaConf.structured(Config)
    for key, value in (names | {key.replace("__", "."): value for key, value in changes.items()}).items():
        OmegaConf.update(cfg, key, value)
    return settings(cfg)


def backbone_of(kind: type[nn.Module], images: ImageData) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Backbone(kind(), images.image_shape, name="small")


def fit(folder: Path, images: ImageData, setting: Config, kind: type[nn.Module] = Small) -> tuple[Classifier, list]:
    """A trained learner, and what was measured of it: (loss, DNC1) before training and after each epoch."""
    learner = Classifier(
        backbone_of(kind, images), 2, load_objective("mse"), setting.optimizer, setting.backbone.epochs, 0
    )
    measured = []

    def measure(epoch: int) -> str:
        assert not torch.is_autocast_enabled("cpu")
        found = measure_backbone(learner.backbone, images)
        assert found.train.dtype == torch.float32
        loss, _ = learner.score(found.train, images.train.labels.to(found.train.device))
        measured.append((loss, found.layers[-1].values["dnc1"].item()))
        return ""

    checkpoints = TrainingCheckpoints(folder / "backbone.ckpt", "key", Record(folder), seconds=1e9)
    train(learner, images, setting, list(range(setting.backbone.epochs + 1)), measure, checkpoints)
    return learner, measured


def weights(learner: nn.Module) -> Tensor:
    return torch.cat([value.double().flatten() for value in learner.state_dict().values()])


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without its slow last stage, the code generator: graphs, guards and state are the real ones."""
    pytest.importorskip("torch._dynamo").reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(acceleration, "_why_no_compiler", lambda device: None)
    counters = torch._dynamo.utils.counters
    counters.clear()
    yield counters
    torch._dynamo.reset()


def trained_values(learner: Classifier, measured: list[tuple[float, float]]) -> dict[str, Tensor]:
    """Weights of the backbone, and the losses."""
    return dict(learner.backbone.state_dict()) | {"losses": torch.tensor([loss for loss, _ in measured])}


def test_a_compiled_training_is_as_near_to_float64_as_the_plain_one(tmp_path, images, traced):
    plain, plainly = fit(tmp_path / "plain", images, config())
    fast, quickly = fit(tmp_path / "fast", images, config(trainer__compile="on"))
    assert traced["stats"]["unique_graphs"] == 1 and fast.fast_backbone is None  # it was one while it trained
    assert all(value.is_contiguous() for value in fast.state_dict().values())
    assert list(fast.state_dict()) == list(plain.state_dict())
    exact = trained_in_float64(config(), images, backbone_of(Small, images), start_norms=False)
    assert_as_near(trained_values(fast, quickly), trained_values(plain, plainly), exact)
    for (_, dnc1), (_, expected) in zip(quickly, plainly, strict=True):
        assert dnc1 == pytest.approx(expected, rel=1e-3)


def test_norms_of_our_own_train_as_near_to_float64_as_pytorchs(tmp_path, images, monkeypatch):
    if native_norm.library() is None:
        pytest.skip("no C++ compiler")
    fast, quickly = fit(tmp_path / "fast", images, config())
    assert decide(config(), fast.backbone, images).key.endswith(", channels_last") and fast.fast_backbone is None
    monkeypatch.setattr(native_norm, "library", lambda: None)
    plain, plainly = fit(tmp_path / "plain", images, config())
    assert "channels_last" not in decide(config(), plain.backbone, images).key
    assert quickly[0] == plainly[0] and not torch.equal(weights(fast), weights(plain))
    exact = trained_in_float64(config(), images, backbone_of(Small, images), start_norms=False)
    assert_as_near(trained_values(fast, quickly), trained_values(plain, plainly), exact)


def test_measuring_and_the_smaller_last_batch_compile_nothing_anew(tmp_path, images, traced):
    fit(tmp_path, images, config(trainer__compile="on", backbone__epochs=3))
    # Forward hooks came and went four times, the mode changed, and every third batch had another size.
    assert traced["stats"]["unique_graphs"] == 1 and not traced["recompiles"] and not traced["graph_break"]


def test_the_generated_code_agrees_with_the_plain_pass(images):
    if acceleration._why_no_compiler(CPU) is not None:
        pytest.skip("no C++ compiler")
    backbone = backbone_of(Small, images)
    learner = Classifier(backbone, 2, load_objective("mse"), config().optimizer, 1, 0)
    plain, before = passed(backbone, backbone, images), weights(learner)
    with decide(config(trainer__compile="on"), backbone, images).applied(learner, images, 4):
        assert torch.equal(weights(learner), before) and all(p.grad is None for p in learner.parameters())
        assert backbone.network[3].weight.stride(1) == 1  # channels_last
        fast = passed(learner.fast_backbone, backbone, images)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def passed(run, backbone: Backbone, images: ImageData) -> list[Tensor]:
    """Features of four images, and the gradients of their square sum."""
    features = run(images.standardise(images.train.images[:4]))
    return [features.detach(), *torch.autograd.grad(features.square().sum(), list(backbone.parameters()))]


def test_a_compiler_that_fails_leaves_the_plain_training_and_one_line(tmp_path, images, monkeypatch, caplog):
    def broken(graph, inputs):
        raise RuntimeError("no such compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    monkeypatch.setattr(acceleration, "_why_no_compiler", lambda device: None)
    with caplog.at_level(logging.INFO, "pipeline.runs.training.acceleration"):
        fast, quickly = fit(tmp_path / "fast", images, config(trainer__compile="on"), Dropping)
    (line,) = [record.message for record in caplog.records if record.name == "pipeline.runs.training.acceleration"]
    assert "\n" not in line and "float32, not compiled: it failed" in line and "no such compiler" in line
    plain, plainly = fit(tmp_path / "plain", images, config(), Dropping)
    assert torch.equal(weights(fast), weights(plain)) and quickly == plainly


def test_without_a_compiler_one_line_says_so(images, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    found = decide(config(trainer__compile="on"), backbone_of(Small, images), images)
    assert not found.compiled and found.why == "float32, not compiled: there is no C++ compiler /nowhere/g++"


def test_auto_compiles_long_trainings_of_convolutions(images, monkeypatch):
    monkeypatch.setattr(acceleration, "_why_no_compiler", lambda device: None)
    mlp, small = build_backbone("mlp", images.image_shape), backbone_of(Small, images)
    for backbone, pays, expected in ((small, 1, True), (small, 1e30, False), (mlp, 1, False)):
        monkeypatch.setattr(acceleration, "COMPILING_PAYS", {"cpu": pays})
        assert decide(config(trainer__compile="auto"), backbone, images).compiled is expected


@pytest.mark.skipif(native_norm.library() is None, reason="no C++ compiler")
def test_auto_leaves_residual_networks_uncompiled_whose_blocks_are_our_own(images, monkeypatch):
    monkeypatch.setattr(acceleration, "_why_no_compiler", lambda device: None)
    monkeypatch.setattr(acceleration, "COMPILING_PAYS", {"cpu": 1})
    network = build_backbone("resnet20", images.image_shape)
    decided = decide(config(trainer__compile="auto"), network, images)
    assert not decided.compiled and decided.why == "float32, not compiled: norms and blocks of our own are as fast"
    assert decide(config(trainer__compile="on"), network, images).compiled
    monkeypatch.setattr(native_norm, "library", lambda: None)
    assert decide(config(trainer__compile="auto"), network, images).compiled


def test_the_work_of_a_training_is_three_forward_passes_an_image(images):
    small = backbone_of(Small, images)
    # A multiply-add counts two: 8 x 8 positions of 9 x 1 x 6, and 6 x 6 of 9 x 6 x 5.
    assert training_flops(small, images, 7) == 3 * 2 * (64 * 54 + 36 * 270) * 100 * 7
    assert all(part.training for part in small.modules())


def test_channels_last_is_for_networks_that_can_take_it(images):
    for kind, expected in ((Small, True), (Viewing, False)):
        small = backbone_of(kind, images)
        acceleration._use_channels_last(small, images)
        last = [part for part in small.modules() if isinstance(part, nn.Conv2d)][-1]
        assert (last.weight.stride(1) == 1) is expected and all(part.training for part in small.modules())
        assert small(images.standardise(images.train.images)).isfinite().all()


def test_bf16_trains_float32_parameters_close_to_float32(tmp_path, images):
    plain, plainly = fit(tmp_path / "plain", images, config())
    half, halfway = fit(tmp_path / "half", images, config(trainer__precision="bf16"))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert not torch.equal(weights(half), weights(plain))
    assert halfway[0] == plainly[0]  # before training: measured in float32
    torch.testing.assert_close(torch.tensor(halfway), torch.tensor(plainly), rtol=5e-2, atol=0)


def test_head_and_loss_are_float32_under_bf16(images):
    backbone = backbone_of(Small, images).eval()
    head = [torch.randn(4, 5, generator=generator(0, "a")), torch.randn(2, 4, generator=generator(0, "b"))]
    penalty = DufmPenalty((1e-2, 1e-2), 1e-3, 100)
    learner = DufmNetwork(backbone, head, "relu", load_objective("mse"), penalty, config().optimizer, 1)
    batch, labels = images.standardise(images.train.images[:8]), images.train.labels[:8]
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(batch)
        found = learner(batch, labels)
    hidden = features.double() @ head[0].double().T
    outputs = F.relu(hidden) @ head[1].double().T
    expected = (outputs - F.one_hot(labels, 2)).square().sum() / 16
    expected += 100 / 8 * 1e-3 / 2 * features.double().square().sum()
    expected += 1e-2 / 2 * sum(weight.double().square().sum() for weight in head)
    assert found.dtype == torch.float32
    # bf16 products would be off by 1e-3.
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_auto_precision_is_bf16_where_the_processor_has_it(images, monkeypatch):
    small = build_backbone("mlp", images.image_shape)
    for amx, avx512, expected in ((False, False, "float32"), (True, False, "bf16"), (False, True, "bf16")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=amx: has, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=avx512: has, raising=False)
        assert decide(config(trainer__precision="auto"), small, images).precision == expected
        assert decide(config(trainer__precision="float32"), small, images).precision == "float32"
    for query in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, query)
    assert not has_native_bf16(CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not has_native_bf16(torch.device("cuda"))


@pytest.mark.parametrize(
    ("key", "value", "choices"),
    [("compile", "fast", "auto, on, off"), ("precision", "half", "float32, float64, bf16, tf32, auto")],
)
def test_another_word_is_refused_with_the_ones_allowed(key, value, choices):
    with pytest.raises(ConfigError, match=rf"^trainer\.{key}={value} is not known; allowed: {choices}\.$"):
        config(**{f"trainer__{key}": value})


def test_yaml_may_say_on_and_off():
    assert settings_of("compile: on").trainer.compile == "on" and settings_of("compile: off").trainer.compile == "off"


def settings_of(text: str) -> Config:
    cfg = OmegaConf.structured(config())
    cfg.trainer = OmegaConf.merge(cfg.trainer, OmegaConf.create(text))
    return settings(cfg)


def test_what_changes_the_numbers_of_a_training_is_part_of_its_key(tmp_path, images, monkeypatch):
    monkeypatch.setattr(acceleration, "_why_no_compiler", lambda device: None)

    def key(**changes) -> str:
        run = Run(config(**changes), Inputs(images, backbone_of(Small, images)), tmp_path, Record(tmp_path))
        return run.key("seed", "backbone")

    same = [{}, {"trainer__precision": "float32"}, {"trainer__devices": 2}, {"trainer__threads": 1}]
    others = [{"trainer__precision": "bf16"}, {"trainer__compile": "on"}, {"trainer__deterministic": True}]
    assert len({key(**changes) for changes in same}) == 1
    assert len({key(**changes) for changes in [{}, *others]}) == 4


def test_determinism_holds_within_and_is_left_as_it_was():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with determinism(True):
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
    torch.use_deterministic_algorithms(False)
    try:
        with determinism(False):
            assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(before[0])


def test_float32_on_a_gpu_is_ieee_unless_tf32_is_asked_for():
    def state() -> tuple[bool, bool, str]:
        cudnn = torch.backends.cudnn
        return cudnn.allow_tf32, cudnn.conv.fp32_precision == "tf32", torch.get_float32_matmul_precision()

    before, gpu = state(), torch.device("cuda")
    for precision, expected in (("float32", (False, False, "highest")), ("tf32", (True, True, "high"))):
        with float32_products(precision, gpu):
            assert state() == expected
        assert state() == before
    with float32_products("float32", CPU):
        assert state() == before


def test_tf32_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match=r"^trainer\.precision=tf32 needs a CUDA device; allowed here: float32, "):
        config(trainer__precision="tf32")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # which is a prototype, as the first call says
def test_a_step_on_a_gpu_does_not_wait_for_it(tmp_path, images, monkeypatch):
    monkeypatch.setattr(learners, "CHECK_EVERY", 10**9)
    step = learners.Learner.training_step

    def watched(learner: Classifier, batches: Iterator[tuple[Tensor, Tensor]], batch_idx: int) -> None:
        try:
            torch.cuda.set_sync_debug_mode("error")
            step(learner, batches, batch_idx + 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(learners.Learner, "training_step", watched)
    fit(tmp_path, images, config(trainer__accelerator="gpu"))

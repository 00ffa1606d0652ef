"""What makes a training faster and changes its numbers: precision, compilation, deterministic algorithms.

`decide` resolves `trainer.precision` and `trainer.compile` from the settings, the hardware and the network, and
`Acceleration.applied` prepares a learner accordingly. Compilation leaves the network as it is: no module is wrapped or
renamed, the learner only gets another way to call it.
"""

import importlib.util
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.config import Config
from pipeline.data import ImageData
from pipeline.measure.extraction import takes_channels_last
from pipeline.runs.training import native_norm
from pipeline.runs.training.channels_last import ChannelsLast
from pipeline.runtime import ranks
from pipeline.runtime.modes import evaluating

if TYPE_CHECKING:
    from pipeline.runs.training.learners import Learner

log = logging.getLogger(__name__)

COMPILING_PAYS = {"cpu": 5e13, "cuda": 2e15}
"""Floating-point operations of a training above which compiling saves time, on each kind of device.

Measured on a CPU, against an eager step without norms of our own: compiling ResNet-20 took 100 s on two busy cores and
saves a fifth of every step, so it pays after 600 steps of 128 images, which are 2e13 operations. The rest is margin.
Residual networks whose blocks are our own (`residual_blocks`) are as fast without. Estimated for a GPU, on which nobody
has measured it: compiling takes as long and pays after 500 s, too, and ResNet-20's step of 1.6e10 operations is 460
kernels (counted on an emulated device), about 3 ms of launches; `scripts/gpu_check` gives the numbers to put here. Not
decided by a trial of speed: a run that goes on has to decide as it did before.
"""


@dataclass(frozen=True)
class Acceleration:
    """What was decided.

    precision: "float32", "tf32" or "bf16", of the backbone; parameters, head, loss and all metrics are float32 or
    wider.
    compiled: whether to compile the backbone. deterministic: as `trainer.deterministic`.
    why: one clause about precision and compiling.
    channels_last: whether to lay out maps channels last in eager training on a CPU, with norms of our own.
    """

    precision: str
    compiled: bool
    deterministic: bool
    why: str
    channels_last: bool = False

    @property
    def key(self) -> str:
        """What of this the numbers of a training depend on."""
        layout = ", channels_last" if self.channels_last and not self.compiled else ""
        return f"{self.precision}, compiled={self.compiled}, deterministic={self.deterministic}{layout}"

    @property
    def lightning(self) -> str:
        """Lightning's name of the precision."""
        return "bf16-mixed" if self.precision == "bf16" else "32-true"

    @contextmanager
    def applied(self, learner: "Learner", images: ImageData, batch_size: int) -> Iterator[None]:
        """Within, the learner, which is on its device already, trains this way; one line in the log says how.

        Memory is laid out as channels_last, which is faster, on GPUs, in compiled code, and elsewhere on a CPU with
        norms of our own: PyTorch's sum such maps naively in float32 there, and gradients lose two digits.
        """
        outcome, others = self.why, ranks.world_size() - 1
        compiling = self.compiled and not others
        if self.compiled and others:
            outcome = f"{self.precision}, not compiled: batch norms talk to {others} other process(es)"
        if _has_convolutions(learner.backbone) and (compiling or learner.device.type == "cuda"):
            _use_channels_last(learner.backbone, images)
        try:
            if compiling:
                outcome = self._compile(learner, (batch_size, *images.image_shape))
                if learner.fast_backbone is None and learner.device.type == "cpu":
                    learner.backbone.to(memory_format=torch.contiguous_format)
            if learner.fast_backbone is None and all(ranks.gather(self.channels_last)):  # norms talk to one another
                learner.fast_backbone = ChannelsLast(learner.backbone)
            log.info("training in %s", outcome)
            yield
        finally:
            learner.fast_backbone = None
            learner.backbone.to(memory_format=torch.contiguous_format)

    def _compile(self, learner: "Learner", batch_shape: tuple[int, ...]) -> str:
        began, compiled = time.monotonic(), CompiledBackbone(learner.backbone, batch_shape[0])
        try:
            with warnings.catch_warnings(action="ignore"), undone(learner):
                images = torch.zeros(batch_shape, device=learner.device)
                # In bf16 without its cache of weights, as in Lightning's steps: else the first compiles once more.
                half = self.precision == "bf16"
                with torch.autocast(images.device.type, torch.bfloat16, enabled=half, cache_enabled=not half):
                    features = compiled(images)
                features.sum().backward()
        except Exception as error:  # whatever the compiler's many parts raise, the network itself is none the worse
            reason = " ".join(filter(None, map(str.strip, str(error).splitlines()[:3])))
            return f"{self.precision}, not compiled: it failed ({type(error).__name__}: {reason})"
        learner.fast_backbone = compiled
        return f"{self.precision}, compiled in {time.monotonic() - began:.0f} s"


class CompiledBackbone:
    """Images ``(B, C, H, W)`` to features ``(B, d)``: compiled for one B, not compiled for a smaller last batch.

    Not a module, so that the network it holds does not show up in a state dict twice.
    """

    def __init__(self, backbone: nn.Module, batch_size: int) -> None:
        self._eager, self._batch_size = backbone, batch_size

        def features(images: Tensor) -> Tensor:
            return backbone(images)

        self._compiled: Callable[[Tensor], Tensor] = torch.compile(features, dynamic=False)

    def __call__(self, images: Tensor) -> Tensor:
        return (self._compiled if len(images) == self._batch_size else self._eager)(images)


def decide(config: Config, backbone: nn.Module, images: ImageData) -> Acceleration:
    """Resolve `trainer.precision` and `trainer.compile` for a training of this backbone on these images.

    The number of processes plays no part, so that the answer is the same on all of them and for any number.
    """
    settings = config.trainer
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if has_native_bf16(config.device) else "float32"
    channels_last = config.device.type == "cpu" and precision != "float64" and _trains_channels_last(backbone, images)
    reason = _why_not_compiled(config, backbone, images, channels_last)
    why = precision if reason is None else f"{precision}, not compiled: {reason}"
    return Acceleration(precision, reason is None, settings.deterministic, why, channels_last)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 numbers itself; elsewhere it is emulated and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # PyTorch has no public query that all its versions share; one that is gone counts as no.
    queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, query, bool)() for query in queries)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Within, operations without a deterministic algorithm are errors; if not wanted, cuDNN picks the fastest by trial.

    cuBLAS also needs CUBLAS_WORKSPACE_CONFIG, which has to be set before CUDA starts (see `pipeline.__main__`).
    """
    cudnn, before = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    benchmark = cudnn.benchmark
    # Never switched off: whoever has switched it on wants it. Nor called in vain, as it imports the compiler.
    if wanted and not before:
        torch.use_deterministic_algorithms(True)
    cudnn.benchmark = not (wanted or before)
    try:
        yield
    finally:
        if wanted and not before:
            torch.use_deterministic_algorithms(False)
        cudnn.benchmark = benchmark


@contextmanager
def float32_products(precision: str, device: torch.device) -> Iterator[None]:
    """Within, a GPU multiplies float32 numbers as such, and in TensorFloat-32 only if `trainer.precision` is tf32:
    PyTorch's own default are convolutions in TensorFloat-32, whose features are off by 7e-4 (emulated) instead of 4e-7.
    """
    if device.type != "cuda":
        yield
        return
    # PyTorch's older names: compilers read them, and fail where only the newer ones were set.
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def _why_not_compiled(config: Config, backbone: nn.Module, images: ImageData, channels_last: bool) -> str | None:
    """A clause, or None if the backbone is to be compiled."""
    choice, device = config.trainer.compile, config.device
    if choice == "off":
        return "trainer.compile=off"
    if choice == "auto":
        if not _has_convolutions(backbone):
            return "the network has no convolutions"
        if training_flops(backbone, images, config.backbone.epochs) < COMPILING_PAYS[device.type]:
            return "the training is too short to earn it back"
        if channels_last and ChannelsLast(backbone).has_fused_parts:
            return "norms and blocks of our own are as fast"
    return _why_no_compiler(device)


def _why_no_compiler(device: torch.device) -> str | None:
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "Triton is not installed"
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(compiler) else f"there is no C++ compiler {compiler}"


def _use_channels_last(backbone: nn.Module, images: ImageData) -> None:
    """Lay out memory as channels_last, unless the network uses `view` on its maps, which would fail."""
    backbone.to(memory_format=torch.channels_last)
    try:
        _forward_two_images(backbone, images)
    except Exception:
        backbone.to(memory_format=torch.contiguous_format)


def training_flops(backbone: nn.Module, images: ImageData, epochs: int) -> float:
    """Multiplications and additions of a training: three times those of the forward passes."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        _forward_two_images(backbone, images)
    return 3 * counter.get_total_flops() / 2 * len(images.train) * epochs


def _has_convolutions(backbone: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) for part in backbone.modules())


@torch.no_grad()
def _trains_channels_last(backbone: nn.Module, images: ImageData) -> bool:
    """Whether the network can, with norms of our own."""
    if not _has_convolutions(backbone) or native_norm.why_not(backbone) is not None:
        return False
    with evaluating(backbone):
        return takes_channels_last(backbone, images, images.train)


@torch.no_grad()
def _forward_two_images(backbone: nn.Module, images: ImageData) -> None:
    """Run the network on two black images in evaluation mode."""
    with evaluating(backbone):
        backbone(torch.zeros(2, *images.image_shape, device=next(backbone.parameters()).device))


@contextmanager
def undone(learner: "Learner") -> Iterator[None]:
    """Afterwards buffers, gradients and the global generators are as they were before."""
    buffers = [(buffer, buffer.clone()) for buffer in learner.buffers()]
    devices = [learner.device] if learner.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for buffer, value in buffers:
            buffer.data.copy_(value)
        learner.zero_grad(set_to_none=True)

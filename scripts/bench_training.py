#!/usr/bin/env python
"""How fast `pipeline.runs.training` is: ours against a plain PyTorch script and the same under default Lightning.

    python scripts/bench_training.py --root DATA [--quick] [--out table.md]

The plain script is of the kind people write: torchvision's data set, PIL transforms, a DataLoader, float32, eager.
Contenders take turns, each for the first images of an epoch, and the median over the rounds counts, so that a noisy
neighbour hits all of them alike. Those that are not ours run in processes of their own: `train` has the C library keep
freed memory, which would serve them too. What is timed is the epoch; set-up and compiling are given apart.
Takes under ten minutes on 2 CPU cores (`--quick`: three). On a GPU the epoch is all of binary CIFAR-10, and a
recipe that keeps the epoch on the device is a contender too.
"""

import argparse
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, see pipeline/runtime/startup.py
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import pytorch_lightning as pl
import torch
from bench_descent import machine, markdown
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from pipeline.config import Config, settings
from pipeline.data import ImageData, ResidentLoader, Split, load_images
from pipeline.dufm.objectives import load_objective
from pipeline.networks import build_backbone
from pipeline.runs.training import native_norm
from pipeline.runs.training.acceleration import has_native_bf16
from pipeline.runs.training.channels_last import ChannelsLast
from pipeline.runs.training.checkpoints import TrainingCheckpoints
from pipeline.runs.training.learners import Classifier
from pipeline.runs.training.training import train
from pipeline.runtime.memory import freed_memory_kept
from pipeline.storage.record import Record

BATCH, LR, MOMENTUM, DECAY = 128, 0.05, 0.9, 5e-4
SPINS, USUAL = "GOMP_SPINCOUNT", "300000"
"""How long a thread looks whether there is work before it sleeps; what it is where nobody says so."""
PLAIN, LIGHTNING = "plain script", "plain script, default Lightning"
PASSIVE = "plain script, threads that wait as ours do"
BARE, BF16_BARE, RECIPE = "our loader, bare loop", "our loader, bare loop, bf16", "epoch on GPU"
OURS, COMPILED = "ours (defaults)", "ours, compile=on"
BF16_EAGER, BF16 = "ours, bf16", "ours, compile=on, bf16"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Contender = Callable[[], float]
"""Runs one epoch of its images; returns the seconds it took."""


class Job:
    """One network on the first images of one data set."""

    def __init__(
        self, name: str, root: Path, images: int, classes: list[int] | None = None, hidden: Sequence[int] = (256, 64)
    ) -> None:
        self.arguments = name, root, images, classes, hidden
        self.name, self.root, self.hidden = name, root, list(hidden)
        self.data, self.backbone = ("cifar10", "resnet20") if name.startswith("ResNet") else ("mnist", "mlp")
        self.augment = "crop_flip" if self.data == "cifar10" else "none"
        whole = load_images(self.data, root=str(root), classes=classes)
        train_split = Split(whole.train.images[:images], whole.train.labels[:images])
        self.images: ImageData = replace(whole, train=train_split).to(DEVICE)
        moves = [RandomCrop(32, padding=4), RandomHorizontalFlip()] if self.data == "cifar10" else []
        transform = Compose([*moves, ToTensor(), Normalize(whole.mean.tolist(), whole.std.tolist())])
        kind = datasets.CIFAR10 if self.data == "cifar10" else datasets.MNIST
        self.dataset: Dataset = kind(str(root), train=True, transform=transform)
        wanted = [i for i, label in enumerate(self.dataset.targets) if classes is None or int(label) in classes]
        self.dataset = Subset(self.dataset, wanted[:images])

    @property
    def steps(self) -> int:
        return -(-len(self.images.train) // BATCH)

    def network(self) -> nn.Sequential:
        backbone = build_backbone(self.backbone, self.images.image_shape, hidden=self.hidden)
        # As many outputs as classes by number: the plain script does not rename those of a subset.
        return nn.Sequential(backbone, nn.Linear(backbone.num_features, 10)).to(DEVICE)

    def config(self, compile_: str, precision: str) -> Config:
        values = {
            "data.name": self.data,
            "data.root": str(self.root),
            "data.augment": self.augment,
            "backbone.name": self.backbone,
            "backbone.epochs": 2,
            "backbone.batch_size": BATCH,
            "backbone.loss": "cross_entropy",
            "optimizer.name": "sgd",
            "optimizer.lr": LR,
            "protocol.name": "frozen_features",
            "logger.name": "none",
            "trainer.compile": compile_,
            "trainer.precision": precision,
        }
        config = OmegaConf.structured(Config)
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        return settings(config)

    def learner(self, config: Config) -> Classifier:
        backbone = build_backbone(self.backbone, self.images.image_shape, hidden=self.hidden)
        classes = self.images.num_classes
        return Classifier(
            backbone, classes, load_objective(config.backbone.loss), config.optimizer, config.backbone.epochs, 0
        )


def clock() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def optimizer_of(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY)


class Plain:
    """The plain script."""

    def __init__(self, job: Job) -> None:
        self.network = job.network()
        self.loader = DataLoader(job.dataset, BATCH, shuffle=True)
        self.optimizer = optimizer_of(self.network)

    def __call__(self) -> float:
        began = clock()
        for images, labels in self.loader:
            loss = F.cross_entropy(self.network(images.to(DEVICE)), labels.to(DEVICE))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return clock() - began


class _Module(pl.LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seconds = network, 0.0

    def on_train_epoch_start(self) -> None:
        self.began = clock()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        self.seconds = clock() - self.began

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer_of(self.network)


class DefaultLightning:
    """The plain script's parts under a Trainer that was told nothing but how long, and where to write."""

    def __init__(self, job: Job) -> None:
        self.module, self.loader = _Module(job.network()), DataLoader(job.dataset, BATCH, shuffle=True)

    def __call__(self) -> float:
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            pl.Trainer(max_epochs=1, default_root_dir=folder).fit(self.module, self.loader)
        return self.module.seconds


class Apart:
    """A contender in a process of its own, as it would run anywhere else. Its threads wait as ours do, or as said."""

    def __init__(self, kind: type, job: Job, *arguments: object, threads_wait: str | None = None) -> None:
        self.once, self.compiled = None, False
        context = multiprocessing.get_context("spawn")
        self._end, other = context.Pipe()
        ours = os.environ[SPINS]
        os.environ[SPINS] = threads_wait or ours
        context.Process(target=_serve, args=(other, kind, job.arguments, arguments), daemon=True).start()
        os.environ[SPINS] = ours

    def __call__(self) -> float:
        self._end.send("go")
        seconds, self.once, self.compiled = self._end.recv()
        return seconds


def _serve(end: Connection, kind: type, job: tuple, arguments: tuple) -> None:
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    run = kind(Job(*job), *arguments)
    with suppress(EOFError):  # nobody asks any more
        while end.recv():
            end.send((run(), getattr(run, "once", None), getattr(run, "compiled", False)))


class Ours:
    """`pipeline.runs.training.training.train`, the second of two epochs: what there is to warm up is warm."""

    def __init__(self, job: Job, compile_: str = "auto", precision: str = "float32") -> None:
        self.job, self.config = job, job.config(compile_, precision)
        self.once: float | None = None
        self.compiled = False

    def __call__(self) -> float:
        learner, times, began = self.job.learner(self.config), {}, clock()

        def measure(epoch: int) -> str:
            times[epoch] = clock()
            self.compiled = not isinstance(learner.fast_backbone, ChannelsLast | None)
            return ""

        with tempfile.TemporaryDirectory() as folder:
            checkpoints = TrainingCheckpoints(Path(folder, "backbone.ckpt"), "bench", Record(Path(folder)), 1e9)
            train(learner, self.job.images, self.config, [0, 1, 2], measure, checkpoints)
        self.once = self.once or times[0] - began
        return times[2] - times[1]


class BareLoop:
    """What our training step does, without Lightning; the second of two epochs."""

    def __init__(self, job: Job, half: bool = False) -> None:
        config, self.half = job.config("off", "float32"), half
        self.learner = job.learner(config).to(DEVICE)
        if DEVICE.type == "cuda":
            self.learner.backbone.to(memory_format=torch.channels_last)
        elif native_norm.why_not(self.learner.backbone) is None:
            self.learner.fast_backbone = ChannelsLast(self.learner.backbone)
        self.optimizer, images = optimizer_of(self.learner), job.images
        self.loader = ResidentLoader(
            images.train, BATCH, seed=0, augment=job.augment, standardise=images.standardise, device=DEVICE
        )

    def __call__(self) -> float:
        with freed_memory_kept() if DEVICE.type == "cpu" else nullcontext():
            self._epoch()
            began = clock()
            self._epoch()
            return clock() - began

    def _epoch(self) -> None:
        for images, labels in self.loader:
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
                loss = self.learner(images, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


class EpochOnDevice:
    """The approach of the fastest public recipes: all images of the epoch are moved at once, then a bare loop."""

    def __init__(self, job: Job) -> None:
        network = job.network().to(memory_format=torch.channels_last)
        self.optimizer, self.run = optimizer_of(network), torch.compile(network, dynamic=False)
        self.images = F.pad(job.images.standardise(job.images.train.images).bfloat16(), (4,) * 4, "reflect")
        self.labels = job.images.train.labels

    def __call__(self) -> float:
        began = clock()
        order = torch.randperm(len(self.labels), device=DEVICE)
        images = self._moved()[order].contiguous(memory_format=torch.channels_last)
        for rows, labels in zip(images.split(BATCH), self.labels[order].split(BATCH), strict=True):
            if len(rows) < BATCH:
                break
            with torch.autocast(DEVICE.type, torch.bfloat16):
                loss = F.cross_entropy(self.run(rows).float(), labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return clock() - began

    def _moved(self) -> Tensor:
        count, windows = len(self.images), self.images.unfold(2, 32, 1).unfold(3, 32, 1)
        top, left = torch.randint(9, (2, count), device=DEVICE)
        moved = windows[torch.arange(count, device=DEVICE), :, top, left]
        flip = torch.rand(count, device=DEVICE) < 0.5
        return torch.where(flip.view(-1, 1, 1, 1), moved.flip(3), moved)


def contenders(job: Job, quick: bool) -> dict[str, Apart]:
    found = {
        PLAIN: Apart(Plain, job, threads_wait=USUAL),
        LIGHTNING: Apart(DefaultLightning, job, threads_wait=USUAL),
        OURS: Apart(Ours, job),
        BARE: Apart(BareLoop, job),
    }
    if job.backbone == "resnet20" and not quick:
        found[PASSIVE] = Apart(Plain, job)
        found[COMPILED] = Apart(Ours, job, "on")
        if has_native_bf16(DEVICE):
            found[BF16_BARE] = Apart(BareLoop, job, True)
            found[BF16_EAGER] = Apart(Ours, job, "off", "bf16")
            found[BF16] = Apart(Ours, job, "on", "bf16")
        if DEVICE.type == "cuda":
            found[RECIPE] = Apart(EpochOnDevice, job)
    return found


def measure(found: dict[str, Contender], rounds: int) -> dict[str, float]:
    """Median seconds per epoch; all take turns, in an order that is turned round every time."""
    taken: dict[str, list[float]] = {name: [] for name in found}
    for run in found.values():
        run()  # once outside the clock
    for round_ in range(rounds):
        for name in list(found)[:: 1 if round_ % 2 else -1]:
            taken[name].append(found[name]())
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def overhead(job: Job, rounds: int) -> float:
    """Milliseconds per step that the whole of `train` takes over the same step in a bare loop."""
    seconds = measure({OURS: Ours(job), BARE: BareLoop(job)}, rounds)
    return 1e3 * (seconds[OURS] - seconds[BARE]) / job.steps


def time_rows(job: Job, seconds: dict[str, float], found: dict[str, Apart]) -> list[list[str]]:
    rows = []
    for name, taken in seconds.items():
        contender = found[name]
        once = "" if contender.once is None else f"{contender.once:.1f}"
        compiled = "yes" if contender.compiled else ""
        ratio = f"{seconds[PLAIN] / taken:.2f}x"
        per_second = f"{len(job.images.train) / taken:,.0f}"
        rows.append([job.name, name, compiled, f"{1e3 * taken / job.steps:.1f}", per_second, ratio, once])
    return rows


def target_rows(resnet: dict[str, float], steps: int, step_overhead: float) -> list[list[str]]:
    verdict = {True: "yes", False: "no"}
    eager, float32 = (
        resnet[PLAIN] / resnet[OURS],
        max(resnet[PLAIN] / resnet[it] for it in (OURS, COMPILED) if it in resnet),
    )
    share = step_overhead / (1e3 * resnet[OURS] / steps)
    rows = [["ResNet-20, float32: over the plain script", ">= 1.4", f"{float32:.2f}", verdict[float32 >= 1.4]]]
    rows.append(["the same without compiling", ">= 1.4", f"{eager:.2f}", verdict[eager >= 1.4]])
    if BF16 in resnet:
        ratio = resnet[PLAIN] / min(resnet[BF16_EAGER], resnet[BF16])
        rows.append(["ResNet-20, bf16: over the plain script", ">= 2.5", f"{ratio:.2f}", verdict[ratio >= 2.5]])
    else:
        rows.append(
            ["ResNet-20, bf16: over the plain script", ">= 2.5", "", "not measured: no native bf16, or --quick"]
        )
    rows.append(["Lightning, ms per step", "< 0.3", f"{step_overhead:.2f}", verdict[step_overhead < 0.3]])
    rows.append(["Lightning, share of a ResNet-20 step", "< 3 %", f"{share:.1%}", verdict[share < 0.03]])
    if DEVICE.type == "cuda":
        best = max(resnet[PLAIN] / resnet[name] for name in (OURS, COMPILED, BF16_EAGER, BF16) if name in resnet)
        rows.append(["GPU, ResNet-20: over the plain script", ">= 5", f"{best:.2f}", verdict[best >= 5]])
        for name in (OURS, COMPILED, BF16_EAGER, BF16, RECIPE):
            if name in resnet:
                rows.append(
                    [f"GPU, {name}: s per epoch, per 200", "", f"{resnet[name]:.2f}, {200 * resnet[name]:.0f}", ""]
                )
    return rows


def profile_rows(job: Job) -> list[list[str]]:
    """Where the time of a bare epoch of ours goes: share of the time in kernels, operator by operator."""
    run = BareLoop(job)
    run()
    on_gpu = DEVICE.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    began = clock()
    with profile(activities=activities) as profiler:
        run()
    taken = clock() - began
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    times = {event.key: getattr(event, attribute) / 1e6 for event in profiler.key_averages()}
    whole = sum(times.values())
    top = sorted(times, key=times.__getitem__, reverse=True)[:8]
    rows = [[name, f"{times[name] / whole:.0%}"] for name in top]
    if on_gpu:
        rows.append(["share of the epoch in kernels (profiled)", f"{whole / taken:.0%}"])
        try:
            run()
            rows.append(["utilisation as the driver tells", f"{torch.cuda.utilization()}%"])
        except Exception as error:  # needs nvidia-ml-py, and a driver that tells
            rows.append(["utilisation", f"not told ({type(error).__name__})"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder with MNIST and CIFAR-10, torchvision's layout")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nothing compiled; about three minutes")
    parser.add_argument("--out", type=Path, help="also write the tables to this markdown file")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    console = Console(width=None if sys.stdout.isatty() else 120)
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU only"
    console.print(f"batch {BATCH}. {machine()}, {where}")
    rounds, batches = (3, 6) if options.quick else (5, 6)
    # The two classes of the full job where a GPU can take all of it.
    resnet = Job("ResNet-20, CIFAR-10", options.root, 10_000 if DEVICE.type == "cuda" else batches * BATCH, [0, 1])
    mlp = Job("MLP, MNIST", options.root, 100 * BATCH)
    rows, seconds = [], {}
    for job in (mlp, resnet):
        found = contenders(job, options.quick)
        seconds[job.name] = measure(found, rounds)
        rows += time_rows(job, seconds[job.name], found)
        console.print(f"{job.name}: {seconds[job.name]}")
    # A network of next to nothing, so that the difference is not lost in its noise.
    step_overhead = overhead(Job("MLP of one unit", options.root, 300 * BATCH, hidden=[1]), rounds)
    tables = {
        "Epochs": (["job", "way", "compiled", "ms/step", "images/s", "over plain", "s until step 1"], rows),
        "Targets": (
            ["what", "target", "measured", "met"],
            target_rows(seconds[resnet.name], resnet.steps, step_overhead),
        ),
        "Profile of ResNet-20": (["operator", "share"], profile_rows(resnet)),
    }
    for title, (header, lines) in tables.items():
        table = Table(*header, title=title)
        for line in lines:
            table.add_row(*line)
        console.print(table)
    if options.out:
        blocks = [f"Measured on {machine()}, {where}.", *(markdown(header, lines) for header, lines in tables.values())]
        options.out.write_text("\n\n".join(blocks) + "\n")


if __name__ == "__main__":
    main()

"""What only a GPU can tell: tests that need one, runs beside those of the CPU, and numbers for docs/performance.md.

    scripts/gpu_check [TABLE.md]               # on a machine with a GPU: at most 8 minutes
    TINY=1 scripts/gpu_check [TABLE.md]        # small, without a GPU: under a minute

Exit code: how many checks failed. A part that the time does not suffice for is left out, and the table says so.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from bench_descent import Case, machine, markdown
from bench_measuring import random_images

from pipeline.dufm.descent import Descent
from pipeline.measure.extraction import backbone_features
from pipeline.measure.heads import measure_head
from pipeline.measure.layers import measure_backbone
from pipeline.networks import build_backbone
from pipeline.runs.training.acceleration import float32_products

REPO = Path(__file__).resolve().parents[1]
SECONDS = 480
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
CONV = ["backbone=resnet20", "descent.lr=0.001"]
RUNS = {
    "frozen_features": [],
    "end_to_end": ["protocol=end_to_end", "protocol.regularization=dufm"],
    "end_to_end, untrained": ["protocol=end_to_end", "protocol.regularization=dufm", "backbone.epochs=0"],
    "fixed_head": ["protocol=fixed_head"],
    "network": ["protocol=network"],
    "dufm": ["protocol=dufm"],
    "kernels": ["protocol=kernels"],
    "shallow": ["protocol=shallow"],
    "ResNet-20": CONV,
    "ResNet-20, bf16": [*CONV, "trainer.precision=bf16"],
    "ResNet-20, tf32": [*CONV, "trainer.precision=tf32", "descent.precision=tf32"],
    "ResNet-20, deterministic": [*CONV, "trainer.deterministic=true"],
}
"""Arguments of the command. The first ones are run on the CPU as well."""
COMPARED = ("frozen_features", "end_to_end", "dufm", "network")


class Check:
    """What was found so far: rows of the table, and how many checks failed."""

    def __init__(self, tiny: bool, seconds: float) -> None:
        self.tiny, self.end = tiny, time.monotonic() + seconds
        self.rows: list[list[str]] = []
        self.failed = 0

    def say(self, what: str, case: str, found: object) -> None:
        text = f"{found:.4g}" if isinstance(found, float) else str(found)
        self.rows.append([what, case, text])
        print(f"{what} | {case} | {text}", flush=True)

    def judge(self, what: str, case: str, fine: bool, found: object = "") -> None:
        self.failed += not fine
        self.say(what, case, ("ok" if fine else "FAILED") + (f", {found}" if found != "" else ""))

    @property
    def left(self) -> float:
        return max(1.0, self.end - time.monotonic())


def took(work: Callable[[], object], repeats: int = 1) -> float:
    """Median seconds."""
    times = []
    for _ in range(repeats):
        began = _now()
        work()
        times.append(_now() - began)
    return statistics.median(times)


def _now() -> float:
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def tests(check: Check) -> None:
    """Those marked `gpu`, on the real one."""
    if not GPU:
        return check.say("tests marked gpu", "", "left out: no GPU")
    files = [str(path) for path in (REPO / "tests").rglob("test_*.py") if "@pytest.mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist", *files]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=min(150, check.left))
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
    check.judge("tests marked gpu", "", done.returncode == 0, done.stdout.strip().splitlines()[-1])


def runs(check: Check) -> None:
    """Short runs of the command, all at once, those of some protocols on the CPU, too."""
    size = ["data.samples_per_class=20", "descent.steps=20", "backbone.epochs=1"]
    if not check.tiny:
        size = ["descent.steps=2000", "backbone.epochs=4"]
    size += ["data.classes=[0,1]", "descent.records_per_decade=2", "logger=none", "record.figures=false", "-q"]
    chosen = {name: RUNS[name] for name in (("dufm",) if check.tiny else RUNS)}
    with tempfile.TemporaryDirectory() as folder:
        started = {}
        for name, own in chosen.items():
            for where in ("", " on the CPU") if name in COMPARED else ("",):
                run, more = f"{folder}/{name}{where}".replace(" ", "_"), ["trainer.accelerator=cpu"] if where else []
                command = [sys.executable, "-m", "pipeline", *size, *own, *more, f"hydra.run.dir={run}"]
                words = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
                started[f"{name}{where}"] = run, subprocess.Popen(command, cwd=folder, **words)
        for name, (_, process) in started.items():
            try:
                said = process.communicate(timeout=min(180, check.left))[0]
            except subprocess.TimeoutExpired:
                process.kill()
                said = process.communicate()[0] + "\nit took too long"
            told = "" if process.returncode == 0 else said.strip().splitlines()[-1][:200]
            check.judge("run", name, process.returncode == 0, told)
        for name in chosen:
            if name in COMPARED and not any(started[key][1].returncode for key in (name, f"{name} on the CPU")):
                found, expected = (last_values(started[key][0]) for key in (name, f"{name} on the CPU"))
                off = ((found - expected).abs() / expected.abs().clip(lower=1e-12)).groupby("metric").max()
                check.say(
                    "run: off the CPU's by, median and worst metric", name, f"{off.median():.1e}, {off.max():.1e}"
                )


def last_values(run: str) -> pd.Series:
    table = pd.read_csv(f"{run}/record.csv", dtype={"layer": str}).fillna({"layer": "", "tap": ""})
    return table.sort_values("step").groupby(["stage", "layer", "tap", "metric", "seed"]).value.last()


def descents(check: Check) -> None:
    """Seed-steps a second, with graphs and without, and what a measurement costs."""
    cases = [
        ("10 seeds, n = 50", 10, 100, True),
        ("1 seed, n = 50", 1, 100, True),
        ("frozen, N = 10,000", 10, 10_000, False),
    ]
    steps = 5000
    if check.tiny:
        cases, steps = [("2 seeds, n = 5", 2, 10, True)], 60
    for dtype, tf32 in ((torch.float64, False), (torch.float32, False), (torch.float32, True)):
        for name, members, samples, free in cases if GPU or not tf32 else ():
            label = f"{name}, {str(dtype).removeprefix('torch.')}{', tf32' if tf32 else ''}"
            tensors = Case(name, members, samples, free, dtype).start()
            found = _descent(tensors, DEVICE, free, tf32)
            found.advance(500 if GPU else 5)
            check.say("descent: seed-steps/s", label, members * steps / took(lambda own=found: own.advance(steps)))
            if found.backend == "torch":
                check.judge("descent: graph captured", label, found._steps._graph is not None)
                found._steps._graph, found._steps._capture_failed = None, True
                check.say(
                    "descent: us a step without graphs", label, 1e6 * took(lambda own=found: own.advance(200)) / 200
                )
            if free and dtype is torch.float64:
                features, weights, labels = tensors
                there = features.to(DEVICE), [weight.to(DEVICE) for weight in weights], labels.to(DEVICE)
                seconds = took(lambda own=there: list(measure_head(*own, 2, "relu")), 3)
                check.say("measuring a head: ms, all layers", label, 1e3 * seconds)


def _descent(tensors: tuple, device: torch.device, free: bool, tf32: bool) -> Descent:
    features, weights, labels = tensors
    moved = features.to(device), [weight.to(device) for weight in weights], labels.to(device)
    decay = 5e-4 if free else None
    return Descent(*moved, num_classes=2, lr=0.1, weight_decay=5e-4, feature_decay=decay, tf32=tf32)


def measuring(check: Check) -> None:
    """A pass, with metrics and without, and how exact features are."""
    images = random_images(64 if check.tiny else 10_000).to(DEVICE)
    backbone = build_backbone("resnet20", images.image_shape).to(DEVICE).eval()

    def measure() -> object:
        return measure_backbone(backbone, images, lambda rows: rows[:, :10])

    def bare() -> object:
        return [backbone_features(backbone, images, split) for split in (images.train, images.test)]

    measure()
    repeats = 1 if check.tiny else 3
    check.say("measuring ResNet-20: s, bare pass", f"{len(images.train)} images", took(bare, repeats))
    check.say("measuring ResNet-20: s, with metrics", f"{len(images.train)} images", took(measure, repeats))
    batch = images.standardise(images.train.images[:64])
    with torch.inference_mode():
        exact = build_backbone("resnet20", images.image_shape).eval().double()(batch.cpu().double())
        for precision in ("float32", "tf32"):
            with float32_products(precision, DEVICE):
                off = backbone(batch).cpu().double() - exact
            check.say("features off float64's by", f"ResNet-20, {precision}", float(off.norm() / exact.norm()))


def training(check: Check) -> None:
    """Milliseconds of a ResNet-20 step of 128 images; how long compiling takes (for `COMPILING_PAYS`)."""
    import bench_training as bench

    class Job(bench.Job):
        def __init__(self) -> None:  # random images in CIFAR-10's shape: the time does not depend on what they show
            self.name, self.root, self.hidden = "ResNet-20", REPO, [256, 64]
            self.data, self.backbone, self.augment = "cifar10", "resnet20", "crop_flip"
            self.images = random_images(128 if check.tiny else 10_000).to(DEVICE)

    job = Job()
    ways = {"eager": ("off", "float32"), "bf16": ("off", "bf16"), "tf32": ("off", "tf32")}
    ways |= {"compiled": ("on", "float32"), "compiled, bf16": ("on", "bf16")}
    for name, way in {"eager": ways["eager"]}.items() if not GPU else ways.items():
        if check.left < 60 and not check.tiny:
            check.say("training ResNet-20", name, "left out: no time")
            continue
        contender = bench.Ours(job, *way)
        check.say("training ResNet-20: ms a step of 128", name, 1e3 * contender() / job.steps)
        check.say("training ResNet-20: s until the first step", name, contender.once)
        if GPU:
            check.say("training ResNet-20: MiB at most", name, torch.cuda.max_memory_allocated() >> 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", type=Path, help="the table as Markdown goes to this file")
    parser.add_argument("--tiny", action="store_true", help="small, and without a GPU")
    options = parser.parse_args()
    if not GPU and not options.tiny:
        print("error: PyTorch finds no CUDA device; TINY=1 scripts/gpu_check runs without one.", file=sys.stderr)
        return 2
    check = Check(options.tiny, SECONDS)
    for part in (tests, runs, descents, measuring, training):
        if check.left < 20:
            check.say(part.__name__, "", "left out: no time")
            continue
        try:
            part(check)
        except Exception as error:  # the other parts are worth having
            check.judge(part.__name__, "", False, f"{type(error).__name__}: {error}".splitlines()[0][:200])
    name = torch.cuda.get_device_name() if GPU else "no GPU (TINY)"
    text = f"{name}; {machine()}; {time.strftime('%d %B %Y')}.\n\n{markdown(['what', 'case', 'found'], check.rows)}\n"
    if options.table is not None:
        options.table.write_text(text)
    print(f"{check.failed} failed")
    return check.failed


if __name__ == "__main__":
    sys.exit(main())

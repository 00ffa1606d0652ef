#!/usr/bin/env python
"""Images in memory and on disk: peak memory of a process, and time of an epoch of batches.

    python scripts/bench_storage.py --folder /tmp/images --counts 2000 8000
    python scripts/bench_storage.py --files bmp --side 256 --counts 5000 10000 20000     (1, 2 and 4 GB; three minutes)

Makes a folder of files (once; beyond the fewest images they are second names of the same ones), and starts a process
for each storage and number of images, which loads them, takes all batches of some epochs, and reads them for the key of
the feature cache. The peak is `ru_maxrss`, with what is mapped of files; the time that of the fastest epoch, when the
files are in the page cache. Last, one process takes epochs of the fewest images from memory and from disk by turns.
With bmp, which is hardly decoded, only the fewest images are loaded into memory.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from pipeline.data import ImageData, ResidentLoader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench_storage"))
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--files", choices=("jpg", "bmp"), default="jpg")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        one = by_turns if options.child == "turns" else measured
        print(json.dumps(one(options.folder, options.child, options.side, options.epochs)))
        return
    print("| images | decoded MiB | storage | load s | peak MiB | epoch s |\n|---|---|---|---|---|---|")
    fewest, peaks = min(options.counts), []
    for count in options.counts:
        folder = folder_of(options, count)
        make(folder, count, options.side, options.files, fewest)
        ways = ("memory", "disk", "disk")  # the second time it is there
        for storage in ways if options.files == "jpg" or count == fewest else ways[1:]:
            found = of_process(options, folder, storage)
            decoded = count * 3 * options.side**2 / 2**20
            numbers = f"{found['load']:.1f} | {found['peak']:.0f} | {found['epoch']:.2f}"
            print(f"| {count} | {decoded:.0f} | {storage} | {numbers} |", flush=True)
        peaks.append(found["peak"])
    turns = of_process(options, folder_of(options, fewest), "turns")
    print(f"\nThe peak from disk is {peaks[-1] / peaks[0]:.2f} times that of the fewest images.")
    print(f"An epoch of {fewest} by turns: memory {turns['memory']:.3f} s, disk {turns['disk']:.3f} s, ", end="")
    print(f"{turns['disk'] / turns['memory']:.3f} times as long.")


def folder_of(options: argparse.Namespace, count: int) -> Path:
    """Where so many images and their cache lie."""
    return options.folder / f"{count}x{options.side}{options.files}"


def of_process(options: argparse.Namespace, folder: Path, child: str) -> dict[str, float]:
    """What a process of its own finds."""
    command = [sys.executable, __file__, "--folder", str(folder), "--side", str(options.side)]
    command += ["--epochs", str(options.epochs), "--child", child]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make(folder: Path, count: int, side: int, kind: str, different: int) -> None:
    """Two classes of smooth random images, of which so many are files of their own."""
    draw = np.random.default_rng(0)
    for number in range(count):
        path = folder / "files" / "ab"[number % 2] / f"{number}.{kind}"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= different:
            first = number % different
            os.link(folder / "files" / "ab"[first % 2] / f"{first}.{kind}", path)
            continue
        small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((side, side)).save(path)


def measured(folder: Path, storage: str, side: int, epochs: int) -> dict[str, float]:
    """What one process needs."""
    from pipeline.data import ResidentLoader
    from pipeline.data.images import PART_BYTES

    began = time.perf_counter()
    data = loaded_from(folder, storage, side)
    loaded = time.perf_counter() - began
    loader = ResidentLoader(data.train, 128, seed=0, standardise=data.standardise)
    fastest = min(seconds_of(loader, epoch) for epoch in range(epochs))
    digest = hashlib.sha256()
    for part in data.train.in_parts(PART_BYTES):
        digest.update(part.contiguous().numpy())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"load": loaded, "peak": peak, "epoch": fastest}


def by_turns(folder: Path, _child: str, side: int, epochs: int) -> dict[str, float]:
    """The fastest epoch from memory and from disk, by turns, in one process."""
    from pipeline.data import ResidentLoader

    data = {storage: loaded_from(folder, storage, side) for storage in ("memory", "disk")}
    loaders = {
        storage: ResidentLoader(it.train, 128, seed=0, standardise=it.standardise) for storage, it in data.items()
    }
    found: dict[str, list[float]] = {storage: [] for storage in loaders}
    for epoch in range(2 * epochs):
        for storage in list(loaders)[:: 1 if epoch % 2 else -1]:
            found[storage].append(seconds_of(loaders[storage], epoch))
    return {storage: min(seconds) for storage, seconds in found.items()}


def loaded_from(folder: Path, storage: str, side: int) -> "ImageData":
    """The images of a folder."""
    from pipeline.data import load_images

    return load_images("image_folder", root=folder / "files", image_size=side, storage=storage, cache=folder / "cache")


def seconds_of(loader: "ResidentLoader", epoch: int) -> float:
    """What an epoch's batches take."""
    began = time.perf_counter()
    loader.set_epoch(epoch)
    for _ in loader:
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Images in memory and on disk: peak memory of a process, and time of an epoch of batches.

    python scripts/bench_storage.py --folder /tmp/images --counts 2000 8000

Makes a folder of JPEG files (once), and starts a process for each storage and number of images, which loads them, takes
all batches of three epochs, and reads them for the key of the feature cache. The peak is `ru_maxrss`, with what is
mapped of files; the time that of the fastest epoch, when the files are in the page cache.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench_storage"))
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options.folder, options.child, options.side)))
        return
    print("| images | decoded MiB | storage | load s | peak MiB | epoch s |\n|---|---|---|---|---|---|")
    for count in options.counts:
        folder = options.folder / f"{count}x{options.side}"
        make(folder, count, options.side)
        for storage in ("memory", "disk", "disk"):  # the second time it is there
            command = [sys.executable, __file__, "--folder", str(folder), "--side", str(options.side)]
            done = subprocess.run([*command, "--child", storage], check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            decoded = count * 3 * options.side**2 / 2**20
            numbers = f"{found['load']:.1f} | {found['peak']:.0f} | {found['epoch']:.2f}"
            print(f"| {count} | {decoded:.0f} | {storage} | {numbers} |")


def make(folder: Path, count: int, side: int) -> None:
    """Two classes of smooth random images."""
    draw = np.random.default_rng(0)
    for number in range(count):
        path = folder / "files" / "ab"[number % 2] / f"{number}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            small.resize((side, side)).save(path)


def measured(folder: Path, storage: str, side: int) -> dict[str, float]:
    """What one process needs."""
    from pipeline.data import ResidentLoader, load_images
    from pipeline.data.images import PART_BYTES

    began = time.perf_counter()
    data = load_images("image_folder", root=folder / "files", image_size=side, storage=storage, cache=folder / "cache")
    loaded = time.perf_counter() - began
    loader = ResidentLoader(data.train, 128, seed=0, standardise=data.standardise)
    epochs = []
    for epoch in range(3):
        began = time.perf_counter()
        loader.set_epoch(epoch)
        for _ in loader:
            pass
        epochs.append(time.perf_counter() - began)
    digest = hashlib.sha256()
    for part in data.train.in_parts(PART_BYTES):
        digest.update(part.contiguous().numpy())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"load": loaded, "peak": peak, "epoch": min(epochs)}


if __name__ == "__main__":
    main()

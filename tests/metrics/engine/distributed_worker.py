"""One rank of the distributed test: measure a shard, synchronise over gloo, write what `compute()` gave.

Arguments: rank, world size, rendezvous file, data file, result file.
"""

import sys
from pathlib import Path

import torch
from torch import distributed

from pipeline.metrics import CollapseMetrics


def main(rank: int, world_size: int, rendezvous: str, data: str, result: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    gathered, gather = [], distributed.all_gather
    distributed.all_gather = lambda *given, **more: gathered.append(1) or gather(*given, **more)
    results = {}
    for name, case in torch.load(data, weights_only=True).items():
        features, labels = case["shards"][rank]
        metric = CollapseMetrics(case["num_classes"], features.shape[1])
        for batch, batch_labels in zip(features.split(7), labels.split(7), strict=True):
            metric.update(batch, batch_labels)
        synchronised = metric.compute()
        # The local state is back after compute(): a second shard can be added and synchronised again.
        metric.update(features, labels)
        results[name] = {"once": synchronised, "twice": metric.compute(), "undefined": metric.undefined}
    results["gathered"] = len(gathered)
    torch.save(results, Path(result))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])

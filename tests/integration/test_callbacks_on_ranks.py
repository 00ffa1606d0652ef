"""`trainer.callbacks` where two processes train: on each they see what there is to see, and all end together."""

from pathlib import Path

import pytest
import torch
from callback_worker import BATCH, CASES, EPOCHS, IMAGES
from commands import commands, script

BATCHES = -(-len(IMAGES.train) // BATCH)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[dict, dict]:
    """Of each rank, by case."""
    folder = tmp_path_factory.mktemp("callbacks")
    done = commands().run(*script(Path(__file__).with_name("callback_worker.py"), folder), folder=folder)
    assert done.code == 0, done.err
    return tuple(torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))


@pytest.mark.parametrize("case, epochs", [("nobody stops", EPOCHS), ("EarlyStopping", 3), ("one rank asks", 2)])
def test_callbacks_of_every_rank_see_each_batch_as_a_step_and_end_together(seen, case, epochs):
    for rank in seen:
        assert rank[case]["steps"] == list(range(1, epochs * BATCHES + 1))
    sizes = [*[BATCH] * (BATCHES - 1), len(IMAGES.train) - BATCH * (BATCHES - 1)]
    shares = zip(*(rank[case]["shares"] for rank in seen), strict=True)
    assert [sum(both) for both in shares] == sizes * epochs


@pytest.mark.parametrize("case", CASES)
def test_on_every_rank_they_watch_what_the_record_holds(seen, case):
    recorded = seen[0][case]["recorded"]
    for rank in seen:
        assert rank[case]["watched"] == [recorded[epoch] for epoch in range(1, len(rank[case]["watched"]) + 1)]
        for name, value in rank[case]["weights"].items():
            assert torch.equal(value, seen[0][case]["weights"][name])


@pytest.mark.parametrize("case", ["nobody stops", "EarlyStopping"])
def test_the_best_network_is_kept_once_and_known_to_every_rank(seen, case):
    file, score = seen[0][case]["best"]
    assert seen[1][case]["best"] == (file, score)
    watched = seen[0][case]["watched"]
    assert score == min(watched)
    assert torch.load(file, weights_only=True)["epoch"] == watched.index(score)
    assert [path.name for path in Path(file).parent.glob("best*")] == [Path(file).name]

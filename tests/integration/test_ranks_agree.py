"""The same numbers come out of 1, 2, 3 and 4 processes, whose shares of images and members are uneven."""

from pathlib import Path

import pytest
import torch
from commands import commands, script
from float64_training import assert_as_near

WORKER = Path(__file__).parent / "rank_worker.py"
WORLDS = (1, 2, 3, 4)
OF_RESNET = (1, 3)
"""As in the worker: ResNet-20 takes ten times as long."""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[tuple[int, int], dict]:
    """(world size, rank) -> what that rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    done = commands().run(*script(WORKER, folder, *WORLDS), folder=folder, seconds=600)
    assert done.code == 0, done.err
    return {
        (world, rank): torch.load(folder / f"{world}-{rank}.pt", weights_only=True)
        for world in WORLDS
        for rank in range(world)
    }


OTHERS = [(world, rank) for world in WORLDS for rank in range(world) if world > 1]
NETWORKS = [("mlp", where) for where in OTHERS] + [("resnet20", where) for where in OTHERS if where[0] in OF_RESNET]


@pytest.mark.parametrize(("network", "where"), NETWORKS)
def test_every_metric_and_feature_is_that_of_one_process(results, network, where):
    expected, found = results[1, 0][network], results[where][network]
    assert list(found) == list(expected) and len(found) > 80
    for name, value in expected.items():
        if name in ("train", "test"):
            assert torch.equal(found[name], value), name  # the same batches passed the same network
        else:
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("where", OTHERS)
def test_a_cache_serves_all_ranks_whoever_filled_it(results, where):
    alone = results[1, 0]["own cache"]
    assert alone["first batches"] > 0 and alone["second batches"] == 0
    own, shared = results[where]["own cache"], results[where]["shared cache"]
    world = [results[where[0], rank]["own cache"]["first batches"] for rank in range(where[0])]
    assert sum(world) == alone["first batches"]  # the ranks shared the passes
    assert own["second batches"] == shared["first batches"] == shared["second batches"] == 0
    for name, value in alone.items():
        if "batches" not in name:
            for found in (own, shared):
                torch.testing.assert_close(found[name], value, rtol=1e-10 if "train" not in name else 0, atol=0)


@pytest.mark.parametrize(("network", "where"), NETWORKS)
def test_training_is_as_near_to_float64_as_that_of_one_process(results, network, where):
    exact, one = results[1, 0][f"float64 {network}"], results[1, 0][f"trained {network}"]
    assert len(exact["losses"]) >= 2
    assert_as_near(results[where][f"trained {network}"], one, exact)


@pytest.mark.parametrize("where", OTHERS)
def test_all_ranks_end_with_the_same_weights(results, where):
    first, own = results[where[0], 0], results[where]
    for name in [name for name in own if name.startswith("trained ")]:
        assert all(torch.equal(own[name][key], value) for key, value in first[name].items())


@pytest.mark.parametrize("where", OTHERS)
def test_members_of_a_descent_do_not_depend_on_how_many_ranks_share_them(results, where):
    expected, found = results[1, 0]["dufm"], results[where]["dufm"]
    assert found["names"] == expected["names"]
    assert torch.equal(found["last"], expected["last"])
    torch.testing.assert_close(found["rows"], expected["rows"], rtol=1e-10, atol=0, equal_nan=True)


@pytest.mark.parametrize("where", OTHERS)
def test_a_descent_on_shared_out_samples_is_that_of_one_process(results, where):
    expected, found = results[1, 0]["sharded"]["whole"], results[where]["sharded"]["whole"]
    assert found["names"] == expected["names"] and found["sizes"] == expected["sizes"]
    for name in ("rows", "last", "bias", "accuracy"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-13, equal_nan=True, msg=name)
    shares = [results[where[0], rank]["sharded"]["whole"]["features"] for rank in range(where[0])]
    assert sum(shares) == expected["features"] and max(shares) < expected["features"]  # no rank had all
    assert "features/1" in expected["kept"] and "features/1" not in found["kept"]


@pytest.mark.parametrize("where", OTHERS)
def test_it_gives_the_same_bits_on_every_rank_and_after_a_signal_to_one(results, where):
    own, first = results[where]["sharded"], results[where[0], 0]["sharded"]
    assert 10 <= own["stopped at"] == first["stopped at"] < 20
    for found in (own["whole"], own["gone on"]):
        assert found["names"] == first["whole"]["names"]
        for name in ("rows", "last", "bias", "accuracy"):
            torch.testing.assert_close(found[name], first["whole"][name], rtol=0, atol=0, equal_nan=True, msg=name)

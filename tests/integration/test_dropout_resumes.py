"""Ranks that drop units, killed and begun again, end with the bytes of ranks that were left alone."""

from pathlib import Path

import torch
from commands import commands, script

WORKER = Path(__file__).parent / "dropout_worker.py"


def test_two_ranks_with_dropout_go_on_with_the_units_that_each_would_have_dropped(tmp_path):
    done = commands().run(*script(WORKER, tmp_path), folder=tmp_path)
    assert done.code == 0, done.err
    for rank in range(2):
        alone, killed = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for name in ("alone", "killed"))
        assert 0 < killed.pop("batches") < alone.pop("batches")  # it went on, and did not begin anew
        assert list(alone) == list(killed)
        for name, value in alone.items():
            assert torch.equal(killed[name], value), name

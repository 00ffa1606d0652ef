"""What cannot fit into memory is refused by its size, before anything is made."""

import pytest
import torch

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.memory import head_bytes, machine_memory, network_bytes, require_memory


def test_the_bounds_are_below_what_the_tensors_take():
    widths, classes, members, samples = [8, 6, 6], 3, 5, 20
    weights = [torch.zeros(members, out, in_) for in_, out in zip(widths, [*widths[1:], classes], strict=True)]
    taken = 3 * sum(weight.nbytes for weight in weights) + 4 * samples * widths[0] + 4 * members * samples * 6
    overhead = 3 * members * len(weights) * 512
    assert head_bytes(members, samples, widths, classes, free=False) == taken + overhead
    more = head_bytes(members, samples, widths, classes, free=True) - taken - overhead
    assert more == 4 * (members - 1) * samples * widths[0]  # every member has features of its own
    assert network_bytes([4, 5, 2]) == 3 * 4 * (4 * 5 + 5 * 2)


def test_what_fits_passes_and_one_byte_more_is_refused_with_the_settings_that_ask_for_it():
    there = machine_memory()
    require_memory(there, "a=1 and b=2")
    with pytest.raises(
        ConfigError, match=r"^a=1 and b=2 need at least .* of memory, and there are .*; allowed: fewer\.$"
    ):
        require_memory(there + 1, "a=1 and b=2", instead="fewer")


def test_sizes_beyond_every_float_are_still_told():
    with pytest.raises(ConfigError, match="GiB of memory"):
        require_memory(10**400, "a=1 and b=2")

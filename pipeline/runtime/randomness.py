"""Where every random number of a run comes from: one generator per seed and purpose, and no global state."""

import hashlib

import torch


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on the seed and the purpose's name and on nothing else.

    Two purposes of one seed are independent streams, so drawing more numbers for one never shifts another.
    The stream is the same on every machine, Python version and process (SHA-256, not `hash`).

    Raises:
        ValueError: if `seed` is negative or not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))

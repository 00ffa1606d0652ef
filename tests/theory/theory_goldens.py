"""Numbers as the specification prints them, right to half a unit of the last digit, and its inputs."""

import pytest
import torch


def printed(text: str):
    """The number, approximately: what a table with these digits allows."""
    digits = len(text.partition(".")[2])
    return pytest.approx(float(text), rel=0, abs=0.6 * 10.0**-digits)


def all_printed(texts: str) -> list:
    return [printed(text) for text in texts.split()]


def waves(samples: int = 60) -> torch.Tensor:
    """Targets YA (samples, 3) of the specification."""
    i = torch.arange(1, samples + 1, dtype=torch.float64)
    columns = [i.sin(), 0.5 * (1.7 * i).cos() + 0.3 * i.sin(), 0.2 * (0.3 * i**2).sin()]
    return torch.stack(columns, dim=1) + torch.tensor([1, -2, 0.5], dtype=torch.float64)


def one_hot(*sizes: int) -> torch.Tensor:
    return torch.eye(len(sizes), dtype=torch.float64).repeat_interleave(torch.tensor(sizes), dim=0)

"""Labels are taken as they come, or the sentence says what to write."""

import pytest
import torch

from pipeline.measure.tracker.labels import class_numbers

LABELS = torch.tensor([0, 1, 1, 0, 1])
ONE_HOT = torch.nn.functional.one_hot(LABELS, 2)


@pytest.mark.parametrize(
    "given",
    [
        *(LABELS.to(dtype) for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8, torch.bool)),
        LABELS[:, None],
        LABELS[:, None].to(torch.uint8),
        *(ONE_HOT.to(dtype) for dtype in (torch.int64, torch.bool, torch.float32, torch.float64)),
    ],
    ids=lambda given: f"{given.dtype}{tuple(given.shape)}",
)
def test_labels_of_any_kind_are_class_numbers(given) -> None:
    found = class_numbers(given, 2)
    assert found.dtype == torch.int64 and torch.equal(found, LABELS)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (LABELS.tolist(), r"torch\.as_tensor\(labels\)"),
        (LABELS.float(), r"labels\.flatten\(\)\.long\(\)"),
        (LABELS.float()[:, None], r"labels\.flatten\(\)\.long\(\)"),
        (ONE_HOT * 0.9 + 0.05, r"labels\.argmax\(dim=1\)"),
        (torch.ones(5, 2), r"labels\.argmax\(dim=1\)"),
        (torch.tensor(1), "one class number for each sample"),
    ],
    ids=str,
)
def test_other_labels_are_refused_with_what_to_write(given, advice) -> None:
    with pytest.raises(ValueError, match=rf"labels must be an int64 tensor of shape \(N,\), got .*{advice}"):
        class_numbers(given, 2)


def test_class_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1 for num_classes = 2, got 255"):
        class_numbers(torch.tensor([0, 255], dtype=torch.uint8), 2)

"""Labels as they come: class numbers of any integer type, one column of them, or one-hot rows."""

from __future__ import annotations

from torch import Tensor

from pipeline.metrics.engine.checks import check_label_range


def class_numbers(labels: object, num_classes: int) -> Tensor:
    """Labels as an int64 tensor `(N,)` in [0, num_classes).

    Raises:
        ValueError: for anything else than integers `(N,)` or `(N, 1)` and one-hot rows `(N, K)`, saying what to write.
    """
    numbers = _numbers(labels, num_classes) if isinstance(labels, Tensor) else None
    if numbers is None:
        raise ValueError(f"labels must be an int64 tensor of shape (N,), got {_kind(labels)}: {_advice(labels)}")
    check_label_range(numbers, num_classes)
    return numbers


def _numbers(labels: Tensor, num_classes: int) -> Tensor | None:
    is_whole = not labels.is_floating_point() and not labels.is_complex()
    if is_whole and (labels.ndim == 1 or labels.shape[1:] == (1,)):
        return labels.reshape(len(labels)).long()
    if labels.ndim == 2 and labels.shape[1] == num_classes and not labels.is_complex():
        ones = labels == 1
        if bool((ones | (labels == 0)).all()) and bool((ones.sum(dim=1) == 1).all()):
            return ones.long().argmax(dim=1)
    return None


def _kind(labels: object) -> str:
    return f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__


def _advice(labels: object) -> str:
    if not isinstance(labels, Tensor):
        made = "torch.as_tensor(labels)"
    elif labels.ndim == 2 and labels.shape[1] > 1:
        made = "labels.argmax(dim=1), if a sample belongs to its largest entry"
    elif labels.is_floating_point() and labels.ndim <= 2:
        made = "labels.flatten().long(), if they are class numbers"
    else:
        return "give one class number for each sample."
    return f"write {made} (in measure by split=, a function that makes a pair (inputs, labels) of a batch)."

"""The 8x8 handwritten digits that ship with scikit-learn: real images without any download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from pipeline.data import Request, Source, data_set
from pipeline.data.selection import split_off_test

NAMES = tuple("0123456789")


@data_set(classes=NAMES)
def digits(request: Request) -> Source:
    """1,797 images (1, 8, 8) of the digits 0..9 (E. Alpaydin and C. Kaynak, UCI ML repository, 1998).

    Their values 0..16 become the grey levels round(255 v / 16): 17 different bytes, so nothing is lost, and the full
    range 0..255 means the same as in the other sets. The set has no test split of its own; one is set aside.
    """
    values, targets = _bundled()
    images = torch.from_numpy(values).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    labels = torch.from_numpy(targets).to(torch.int64)
    train, test = split_off_test(labels, NAMES, request.test_fraction)
    return Source.of_tensors((images[train], labels[train]), (images[test], labels[test]))


def _bundled() -> tuple[np.ndarray, np.ndarray]:
    """Values 0..16 `(1797, 64)` and digits `(1797,)`, float64, from the file itself: importing scikit-learn takes two
    seconds."""
    file = Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.exists():  # a version that keeps it elsewhere
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1]

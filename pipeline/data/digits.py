"""The 8x8 handwritten digits that ship with scikit-learn: real images without any download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from pipeline.data.selection import split_off_test
from pipeline.data.source import Source


class Digits:
    """1,797 images (1, 8, 8) of the digits 0..9 (E. Alpaydin and C. Kaynak, UCI ML repository, 1998).

    Their values 0..16 become the grey levels round(255 v / 16): 17 different bytes, so nothing is lost, and the full
    range 0..255 means the same as in the other sets. The set has no test split of its own; one is set aside.
    """

    needs_root = False
    torchvision_name = None
    names = tuple("0123456789")

    def class_names(self, root: Path | None) -> tuple[str, ...]:
        return self.names

    def check(self, root: Path | None) -> None:
        """Nothing can be missing."""

    def open(self, root: Path | None, test_fraction: float, image_size: int | None) -> Source:
        values, targets = _bundled()
        images = torch.from_numpy(values).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
        labels = torch.from_numpy(targets).to(torch.int64)
        train, test = split_off_test(labels, self.names, test_fraction)
        return Source.of_tensors((images[train], labels[train]), (images[test], labels[test]))


def _bundled() -> tuple[np.ndarray, np.ndarray]:
    """Values 0..16 `(1797, 64)` and digits `(1797,)`, float64, from the file itself: to import scikit-learn takes two
    seconds."""
    file = Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.exists():  # a version that keeps it elsewhere
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1]

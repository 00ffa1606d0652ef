"""KMNIST: cursive Japanese characters in MNIST's format (T. Clanuwat and others 2018)."""

from pipeline.data import Request, Source, data_set
from pipeline.data.idx import IdxFiles

NAMES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def files() -> IdxFiles:
    """The packed files, of which the MD5s are published."""
    from torchvision.datasets import KMNIST

    return IdxFiles(folder="KMNIST/raw", num_classes=len(NAMES), checksums=dict(KMNIST.resources), packed=True)


def check(request: Request) -> None:
    """Raise DataError unless all four files are there."""
    files().check(request)


@data_set(classes=NAMES, needs_root=True, torchvision="KMNIST", check=check)
def kmnist(request: Request) -> Source:
    """60,000 training and 10,000 test images (1, 28, 28) from the .gz files under `<root>/KMNIST/raw`."""
    return files().open(request)

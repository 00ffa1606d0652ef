"""MNIST: handwritten digits (Y. LeCun, C. Cortes, C. Burges)."""

from pipeline.data import Request, Source, data_set
from pipeline.data.idx import IdxFiles

NAMES = tuple("0123456789")
FILES = IdxFiles(
    folder="MNIST/raw",
    num_classes=len(NAMES),
    checksums={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
)


@data_set(classes=NAMES, needs_root=True, torchvision="MNIST", check=FILES.check)
def mnist(request: Request) -> Source:
    """60,000 training and 10,000 test images (1, 28, 28) under `<root>/MNIST/raw`."""
    return FILES.open(request)

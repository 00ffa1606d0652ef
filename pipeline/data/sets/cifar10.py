"""CIFAR-10: 32x32 colour images (A. Krizhevsky 2009)."""

from pipeline.data import Request, Source, data_set
from pipeline.data.cifar_files import PickledBatches

FILES = PickledBatches("CIFAR10", "cifar-10-batches-py")


@data_set(
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    needs_root=True,
    torchvision="CIFAR10",
    check=FILES.check,
)
def cifar10(request: Request) -> Source:
    """50,000 training and 10,000 test images (3, 32, 32) under `<root>/cifar-10-batches-py`."""
    return FILES.open(request)

"""MNIST's images as vectors of pixels from 0 to 1, in the order of their rows; the files of `mnist`."""

from torch import Tensor

from pipeline.data import Request, Source, data_set
from pipeline.data.sets.mnist import FILES, NAMES
from pipeline.data.vector_rows import VectorSettings, as_rows


@data_set(
    classes=NAMES, needs_root=True, torchvision="MNIST", check=FILES.check, settings=VectorSettings, kind="vectors"
)
def mnist_vectors(request: Request) -> Source:
    """60,000 training and 10,000 test rows (784, 1, 1) float32; no mean is taken from them unless that is asked for."""
    images = FILES.open(request)

    def read(train_rows: Tensor, test_rows: Tensor) -> tuple[Tensor, Tensor]:
        train, test = images.read(train_rows, test_rows)
        return as_rows(train.flatten(1) / 255), as_rows(test.flatten(1) / 255)

    return Source(images.train_labels, images.test_labels, read)

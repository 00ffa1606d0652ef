"""Fashion-MNIST: clothes in MNIST's format (H. Xiao, K. Rasul, R. Vollgraf 2017)."""

from pipeline.data import Request, Source, data_set
from pipeline.data.idx import IdxFiles

NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# These MD5s are of the content of the archives whose own MD5s torchvision lists.
FILES = IdxFiles(
    folder="FashionMNIST/raw",
    num_classes=len(NAMES),
    checksums={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)


@data_set(classes=NAMES, needs_root=True, torchvision="FashionMNIST", check=FILES.check)
def fashion_mnist(request: Request) -> Source:
    """60,000 training and 10,000 test images (1, 28, 28) under `<root>/FashionMNIST/raw`."""
    return FILES.open(request)

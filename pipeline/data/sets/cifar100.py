"""CIFAR-100: 32x32 colour images of a hundred classes (A. Krizhevsky 2009)."""

from pipeline.data import Request, Source, data_set
from pipeline.data.cifar_files import PickledBatches

FILES = PickledBatches("CIFAR100", "cifar-100-python")
FINE_LABELS = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
"""In alphabetical order."""


@data_set(classes=FINE_LABELS.split(" "), needs_root=True, torchvision="CIFAR100", check=FILES.check)
def cifar100(request: Request) -> Source:
    """50,000 training and 10,000 test images (3, 32, 32) with their fine labels under `<root>/cifar-100-python`."""
    return FILES.open(request)

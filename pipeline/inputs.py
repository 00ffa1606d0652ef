"""What a run works on, made before its folder is: everything that can still be wrong with a configuration."""

from dataclasses import dataclass

from pipeline.backbones import Backbone, build_backbone
from pipeline.config import Config
from pipeline.data import ImageData, load_images
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Inputs:
    """Images and an untrained backbone; both None for a protocol without images."""

    images: ImageData | None = None
    backbone: Backbone | None = None


def prepare(config: Config) -> Inputs:
    """Load the images and build the backbone.

    Raises:
        ConfigError: damaged or missing files, too few images, images the backbone cannot take.
    """
    if not config.uses_images:
        return Inputs()
    data, backbone = config.data, config.backbone
    try:
        images = load_images(data.name, **data.request, seed=config.seed)
        network = build_backbone(backbone.name, images.image_shape, **backbone.request, seed=config.seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return Inputs(images, network)

"""What a run works on, made before its folder is: everything that can still be wrong with a configuration."""

import hashlib
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config, unusable
from pipeline.data import ImageData, load_images
from pipeline.measure.extraction import widths
from pipeline.measure.layers import state_bytes
from pipeline.networks import Backbone, build_backbone, load_weights, structural_settings
from pipeline.runs.given_weights import run_weights, trained_as
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.memory import head_bytes, network_bytes, require_memory
from pipeline.theory import DufmProblem, collapsed_optimum

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GivenWeights:
    """The file that the backbone's weights were read from, and its SHA-256."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Inputs:
    """Images and a backbone, untrained unless its weights were given; None for a protocol without images."""

    images: ImageData | None = None
    backbone: Backbone | None = None
    weights: GivenWeights | None = None


def prepare(config: Config) -> Inputs:
    """Load the images, build the backbone, and load the weights it is to start with.

    Raises:
        ConfigError: damaged or missing files, too few images, images the backbone cannot take, weights that do not fit.
    """
    if not config.uses_images:
        return Inputs()
    data, backbone = config.data, config.backbone
    try:
        images = load_images(data.name, **data.request, seed=config.seed)
        if backbone.name == "mlp":
            widths = [math.prod(images.image_shape), *backbone.hidden]
            require_memory(network_bytes(widths), f"layers of backbone.hidden={backbone.hidden}", config.device)
        network = build_backbone(backbone.name, images.image_shape, **backbone.request, seed=config.seed)
        weights = _load_given(config, network)
    except OSError as error:
        raise unusable(error) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    _check_shares(config, images)
    _check_head_memory(config, images, network.num_features)
    _check_flattened(config, images, network)
    if config.protocol.name == "fixed_head":
        _check_fixed_head(config, images, network)
    return Inputs(images, network, weights)


def dufm_of(config: Config, images: ImageData) -> DufmProblem:
    """The DUFM whose optimum is the head of fixed_head, with one sample per class standing for all of the class.

    The n samples of a collapsed class cost as much as one with feature decay n lambda_{H_1} (`pipeline.theory`).
    Classes that differ in size are taken for equal ones of their mean size N / K.
    """
    mean_size = len(images.train) / images.num_classes
    head = config.head
    return DufmProblem(images.num_classes, 1, head.depth, config.weight_decays, head.feature_decay * mean_size)


def _load_given(config: Config, backbone: Backbone) -> GivenWeights | None:
    given = config.backbone
    if given.from_run is None and given.checkpoint is None:
        return None
    if given.from_run is None:
        path, key = Path(os.path.expanduser(given.checkpoint)), "backbone.checkpoint"
    else:
        folder = Path(os.path.expanduser(given.from_run))
        path, key = run_weights(folder), "backbone.from_run"
        _check_same_network(given.from_run, trained_as(folder), config)
    left_out = load_weights(backbone, path, key)
    if left_out:
        log.info("%s=%s: left out %s, which the backbone does not have", key, path, ", ".join(left_out))
    return GivenWeights(path, hashlib.sha256(path.read_bytes()).hexdigest())


def _check_same_network(run: str, theirs: dict, config: Config) -> None:
    for key in ("name", *structural_settings(config.backbone.name)):
        ours = getattr(config.backbone, key)
        if theirs.get(key, ours) != ours:
            name = "backbone" if key == "name" else f"backbone.{key}"
            raise ConfigError(
                f"backbone.from_run={run} was trained with {name}={theirs[key]}, here it is {ours}; "
                f"allowed: the same network, {name}={theirs[key]}."
            )


def _check_shares(config: Config, images: ImageData) -> None:
    """Every process needs an image of every batch: a network cannot pass, nor a batch norm normalise, none."""
    processes, count = config.trainer.devices * config.trainer.num_nodes, len(images.train)
    batch = min(config.backbone.batch_size, count)
    for images_in_batch, words in ((batch, ""), (count % batch or batch, f" (the last of {count} images)")):
        if config.backbone.epochs and images_in_batch < processes:
            raise ConfigError(
                f"backbone.batch_size={config.backbone.batch_size} makes a batch{words} of {images_in_batch} image(s) "
                f"for {processes} processes (trainer.devices x trainer.num_nodes); allowed: at least one image each."
            )


def _check_head_memory(config: Config, images: ImageData, num_features: int) -> None:
    head, fixed = config.head, config.protocol.name == "fixed_head"
    members = 1 if config.protocol.name == "end_to_end" else config.descent.seeds
    num_samples = images.num_classes if fixed else len(images.train)
    widths = [num_features] + [head.width] * (head.depth - 1)
    needed = head_bytes(members, num_samples, widths, images.num_classes, free=fixed or head.inputs == "free")
    what = f"descent.seeds={members}, head.depth={head.depth} and head.width={head.width}"
    require_memory(needed, what, config.device)


def _check_flattened(config: Config, images: ImageData, backbone: Backbone) -> None:
    """Whole maps are wide: K class means of each place have to fit into memory."""
    if config.backbone.pooling != "flatten":
        return
    found = widths(backbone, images.image_shape, "flatten").values()
    needed = state_bytes(list(found), images.num_classes)
    what = f"class means of {len(found)} maps of up to {max(found):,} numbers (backbone.pooling=flatten)"
    require_memory(needed, what, config.device, instead="average, smaller images or fewer classes")


def _check_fixed_head(config: Config, images: ImageData, backbone: Backbone) -> None:
    head, classes, width = config.head, images.num_classes, backbone.num_features
    if width < classes or (head.depth > 1 and head.width < classes):
        raise ConfigError(
            f"protocol=fixed_head needs every layer at least as wide as there are classes ({classes}), but "
            f"head.width={head.width} and the backbone has {width} features; allowed: wider ones."
        )
    if collapsed_optimum(dufm_of(config, images)).zero_is_optimal:
        raise ConfigError(
            f"head.weight_decay={head.weight_decay} and head.feature_decay={head.feature_decay} are so large that the "
            "optimum of the DUFM, whose weights protocol=fixed_head freezes, is zero; allowed: smaller ones."
        )

"""The images and the network of a run, made before its folder is, so that what is wrong with them leaves no trace."""

import glob
import hashlib
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Config, unusable
from pipeline.data import ImageData, load_images
from pipeline.measure.costs import family_bytes
from pipeline.measure.extraction import readings
from pipeline.metrics.engine.cases import left_out_sentence
from pipeline.networks import Backbone, build_backbone, load_weights, structural_settings
from pipeline.networks.beside import axis_of, naturally, position_in
from pipeline.networks.reading import Unreadable
from pipeline.networks.registry import architectures
from pipeline.runs.family_checks import check_families, path_of, stacks_of
from pipeline.runs.given_weights import run_weights, trained_as
from pipeline.runs.image_targets import fitted_to
from pipeline.runs.protocols import protocol_named
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.memory import head_bytes, network_bytes, require_memory
from pipeline.runtime.settings import shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GivenWeights:
    """The file that the backbone's weights were read from (the last of several states of it), and its SHA-256 (that of
    all of them).

    key: the setting that named it. files, steps: all states in order, and where each stands; unit: what that counts.
    """

    path: Path
    digest: str
    key: str = "backbone.checkpoint"
    files: tuple[Path, ...] = ()
    steps: tuple[int, ...] = ()
    unit: str = "epoch"

    @classmethod
    def of(cls, key: str, files: Sequence[Path]) -> "GivenWeights":
        """The weights in these files, which can be read."""
        positions = [position_in(path, key) for path in files]
        unit, steps = axis_of(positions) if len(files) > 1 else ("epoch", [positions[0].get("epoch", 0)])
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        digest = digests[0] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        return cls(files[-1], digest, key, tuple(files), tuple(steps), unit)


@dataclass(frozen=True)
class Inputs:
    """Images and a backbone, untrained unless its weights were given; None where the protocol uses none."""

    images: ImageData | None = None
    backbone: Backbone | None = None
    weights: GivenWeights | None = None


def prepare(config: Config) -> Inputs:
    """Load the images, build the backbone, and load the weights it is to start with.

    Raises:
        ConfigError: damaged or missing files, too few images, images the backbone cannot take, weights that do not fit.
    """
    protocol = protocol_named(config.protocol.name)
    inputs = Inputs()
    try:
        if protocol.images:
            inputs = Inputs(load_images(config.data.name, **config.data.request, seed=config.seed))
            _check_kind(config, inputs.images)
            if protocol.regresses:
                inputs = Inputs(fitted_to(config, inputs.images))
        if protocol.network:
            inputs = Inputs(inputs.images, *_network(config, inputs.images))
    except OSError as error:
        raise unusable(error) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check_families(config, inputs.images, inputs.backbone)
    if inputs.images is not None:
        _tell_left_out(config, inputs.images)
    if protocol.network:
        _check_shares(config, inputs.images)
        _check_layers(config, inputs.images, inputs.backbone)
        _check_training(config, inputs)
    if protocol.network and protocol.head:
        members = 1 if protocol.head == "joint" else config.descent.seeds
        check_head_memory(config, inputs, members, len(inputs.images.train), free=config.head.inputs == "free")
    if protocol.check_inputs:
        protocol.check_inputs(config, inputs)
    return inputs


def _check_kind(config: Config, images: ImageData) -> None:
    """Refuse what vectors and texts are not: pictures that can be moved, and maps for convolutions."""
    what = f"data={images.name}, which holds {images.kind}"
    if images.kind != "images" and config.data.augment != "none":
        raise ConfigError(
            f"data.augment={config.data.augment} does not go with {what} and no images; allowed: data.augment=none."
        )
    uses_network = protocol_named(config.protocol.name).network
    if uses_network and images.kind not in architectures()[config.backbone.name].takes:
        fit = [name for name, made in architectures().items() if images.kind in made.takes]
        raise ConfigError(
            f"backbone={config.backbone.name} does not go with {what}; allowed: backbone={', '.join(fit)}, or a data "
            f"set of {' or '.join(architectures()[config.backbone.name].takes)}."
        )


def _tell_left_out(config: Config, images: ImageData) -> None:
    how = config.measure.settings
    for split in ("train", "test"):
        few = [name for name, count in images.class_counts(split).items() if not how.counts(count)]
        if few:
            said = left_out_sentence(few, images.num_classes, how.min_samples, how.max_samples)
            log.warning("%s split: %s", split, said)


def check_head_memory(config: Config, inputs: Inputs, members: int, num_samples: int, *, free: bool) -> None:
    """Refuse a head on the backbone's features that cannot fit into memory.

    Args:
        members: how many there are, each with a start of its own.
        num_samples: N, rows of the features.
        free: whether each member has features of its own.

    Raises:
        ConfigError: it needs more than there is.
    """
    head, classes = config.head, inputs.images.num_classes
    widths = [inputs.backbone.num_features] + [head.width] * (head.depth - 1)
    what = f"descent.seeds={members}, head.depth={head.depth} and head.width={head.width}"
    require_memory(head_bytes(members, num_samples, widths, classes, free=free), what, config.device)


def _network(config: Config, images: ImageData) -> "tuple[Backbone, GivenWeights | None]":
    backbone = config.backbone
    if backbone.name == "mlp":
        widths = [math.prod(images.image_shape), *backbone.hidden, *[backbone.hidden[-1]] * backbone.linear_tail]
        require_memory(network_bytes(widths), f"layers of backbone.hidden={backbone.hidden}", config.device)
    if backbone.name == "residual_mlp":
        widths = [math.prod(images.image_shape), *[backbone.width] * (backbone.depth * backbone.block_layers)]
        what = f"layers of backbone.width={backbone.width} and backbone.depth={backbone.depth}"
        require_memory(network_bytes(widths), what, config.device)
    if backbone.name == "rfm":
        count = len(images.train)
        require_memory(4 * 8 * count**2, f"the kernel matrix of {count} images (backbone=rfm)", config.device)
    text = images.kind == "text"
    network = build_backbone(
        backbone.name,
        (*images.image_shape, images.num_classes) if text else images.image_shape,
        tokens=text,
        **backbone.request,
        seed=config.seed,
        layers=backbone.layers,
        read=backbone.read,
    )
    if hasattr(network.network, "fit") and not protocol_named(config.protocol.name).states:
        raise ConfigError(
            f"backbone={backbone.name} is fitted at once and not trained, which protocol={config.protocol.name} does; "
            "allowed: protocol=network, or another backbone."
        )
    if config.trainer.precision == "float64":
        network.double()
    return network, _load_given(config, network)


def _load_given(config: Config, backbone: Backbone) -> GivenWeights | None:
    given = config.backbone
    if given.from_run is not None:
        folder = Path(os.path.expanduser(given.from_run))
        files, key = [run_weights(folder)], "backbone.from_run"
        _check_same_network(given.from_run, trained_as(folder), config)
    elif given.checkpoint is not None:
        files, key = [Path(os.path.expanduser(given.checkpoint))], "backbone.checkpoint"
    elif given.checkpoints is not None:
        files, key = _matching(given.checkpoints), "backbone.checkpoints"
    else:
        return None
    prefix = given.checkpoint_prefix if given.from_run is None else None
    told = set()
    for path in files:
        left_out = ", ".join(load_weights(backbone, path, key, prefix))
        if left_out and left_out not in told:
            log.info("%s=%s: left out %s, which the backbone does not have", key, path, left_out)
        told.add(left_out)
    return GivenWeights.of(key, files)


def _matching(pattern: str) -> list[Path]:
    """The files that a pattern means, in natural order: 9 before 10."""
    found = [Path(name) for name in glob.glob(os.path.expanduser(pattern), recursive=True)]
    if not any(path.is_file() for path in found):
        what = "is a folder" if found else "matches no file"
        raise ConfigError(
            f"backbone.checkpoints={pattern} {what}; allowed: a pattern of files with weights, 'runs/*.ckpt'."
        )
    return sorted((path for path in found if path.is_file()), key=naturally)


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
    """Every process needs at least one image of every batch: a batch norm cannot normalise an empty one."""
    processes, count = config.trainer.devices * config.trainer.num_nodes, len(images.train)
    batch = config.backbone.batch_of(count)
    for images_in_batch, words in ((batch, ""), (count % batch or batch, f" (the last of {count} images)")):
        if config.backbone.epochs and images_in_batch < processes:
            raise ConfigError(
                f"backbone.batch_size={config.backbone.batch_size} makes a batch{words} of {images_in_batch} image(s) "
                f"for {processes} processes (trainer.devices x trainer.num_nodes); allowed: at least one image each."
            )


def _check_layers(config: Config, images: ImageData, backbone: Backbone) -> None:
    """Refuse layers that cannot be read, and those wider than memory."""
    pooling = config.pooling
    try:
        found = readings(backbone, pooling)
    except Unreadable as error:
        blocks = {activation: block for block, activation in backbone.activations.items()}
        layer = blocks.get(error.module, error.module).removeprefix("network.")
        raise ConfigError(
            f"{backbone.name}: layer {layer} {error.why}; allowed: backbone.read={{{layer}: nhwc}} or another way to "
            "read it, or backbone.layers without it."
        ) from error
    # Flattened maps are wide: K class means of each place have to fit into memory.
    how = config.measure.settings
    if pooling == "flatten" or config.backbone.read or how.families != ("core",):
        widths = {place: width for place, (_, width, _) in found.items()}
        sizes = list(widths.values())
        rows, stacks = len(images.train), stacks_of(config, backbone)
        path = path_of(config, backbone, rows)
        spent = family_bytes(widths, images.num_classes, how, len(images.groups), rows, stacks, path)
        needed = 2 * sum(spent.values())
        key = "backbone.pooling=flatten" if pooling == "flatten" else "backbone.read"
        if how.families != ("core",):
            key += f" and measure.families={shown(config.measure.families)}"
        what = f"class means of {len(sizes)} maps of up to {max(sizes):,} numbers ({key})"
        require_memory(needed, what, config.device, instead="average, smaller images or fewer classes")


def trains_backbone(config: Config, inputs: Inputs) -> bool:
    """Whether the weights of the backbone change: given ones are measured as they are unless a head is trained too."""
    joint = protocol_named(config.protocol.name).head == "joint"
    return config.backbone.epochs > 0 and (inputs.weights is None or joint)


def _check_training(config: Config, inputs: Inputs) -> None:
    """A network that is to be trained is tried in training mode; L-BFGS wants all images at once."""
    if config.trainer.callbacks and not trains_backbone(config, inputs):
        raise ConfigError(
            "trainer.callbacks has nothing to see: no network is trained here; allowed: null, or backbone.epochs > 0 "
            "without given weights."
        )
    if trains_backbone(config, inputs):
        count, processes = len(inputs.images.train), config.trainer.devices * config.trainer.num_nodes
        if config.optimizer.name == "lbfgs" and (config.backbone.batch_of(count) < count or processes > 1):
            raise ConfigError(
                f"optimizer.name=lbfgs needs all {count} images at once in one process, but "
                f"backbone.batch_size={config.backbone.batch_size} with {processes} process(es) is asked for; allowed: "
                "backbone.batch_size=0, trainer.devices=1."
            )
        try:
            inputs.backbone.try_training()
        except ValueError as error:
            raise ConfigError(str(error)) from error

"""Settings of a head that do not go together, refused before anything is made."""

from collections.abc import Iterator, Sequence

from pipeline.config import Config
from pipeline.runs.image_targets import KINDS, LABELS
from pipeline.runs.inputs import Inputs
from pipeline.runs.protocols import Protocol
from pipeline.runs.shapes import Shape, shape_of
from pipeline.runs.sharding import why_not_sharded
from pipeline.runs.starts import BALANCED, FILE, RANDOM, SPECTRAL, start_named, start_of, structure, terms_of
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import shown

OF_DUFM = ("class_sizes", "targets", "start", "start_file", "start_noise", "feature_scale")
"""Settings of ``protocol`` that say what a head without images is fitted to, and where it begins."""


def check_head(config: Config, protocol: Protocol) -> None:
    """Refuse settings of a head that mean nothing together.

    Raises:
        ConfigError: the first of them.
    """
    for sentence in (
        *_of_the_head(config),
        *_of_precision(config, protocol),
        *_of_features(config, protocol),
        *_of_images(config, protocol),
        *_of_shares(config, protocol),
    ):
        raise ConfigError(sentence)


def check_class_sizes(config: Config, sizes: Sequence[int], key: str) -> None:
    """Refuse classes that are too small for the loss; ``key`` says where the sizes come from.

    Raises:
        ConfigError: a class has fewer samples than the loss needs.
    """
    least = config.objective.smallest_class
    if min(sizes, default=least) < least:
        raise ConfigError(
            f"head.loss={config.head.loss} needs {least} samples of each class, and {key} has a class of {min(sizes)}; "
            f"allowed: classes of {least} or more."
        )


def check_dufm(config: Config) -> None:
    """Refuse targets, starts and anchors of a head without images that cannot be used; files are read.

    Raises:
        ConfigError: the first of them.
    """
    shape, protocol, head = shape_of(config), config.protocol, config.head
    if shape.has_classes:
        plain = protocol.class_sizes is None
        key = f"protocol.samples_per_class={protocol.samples_per_class}" if plain else "protocol.class_sizes"
        check_class_sizes(config, shape.labels.bincount().tolist(), key)
    narrow = protocol.num_features != shape.num_outputs
    if not head.depth and config.objective.classifies and narrow and protocol.start != FILE:
        raise ConfigError(
            f"head.depth=0 makes the features the outputs, and head.loss={head.loss} fits {shape.num_outputs} of them, "
            f"but protocol.num_features={protocol.num_features}; allowed: protocol.num_features={shape.num_outputs}."
        )
    _check_room_for_frame(config, shape)
    terms, how = terms_of(config, shape), start_named(config)
    if protocol.features == BALANCED and how != BALANCED:
        raise ConfigError(
            f"protocol.features=balanced is the older name of protocol.start=balanced, and protocol.start={how}; "
            "allowed: one of them."
        )
    if how == BALANCED and not (head.depth and config.weight_decays[0] > 0 and head.feature_decay > 0):
        raise ConfigError(
            f"protocol.start=balanced balances H_1 against W_1, with head.depth={head.depth}, "
            f"head.weight_decay={shown(head.weight_decay)} and head.feature_decay={head.feature_decay}; allowed: a "
            "depth from 1 and decays > 0, or another start."
        )
    if how == FILE and protocol.start_file is None:
        raise ConfigError("protocol.start=file needs protocol.start_file; allowed: a safetensors file.")
    if how != FILE and protocol.start_file is not None:
        raise ConfigError(
            f"protocol.start_file={protocol.start_file} is not used with protocol.start={how}; allowed: "
            "protocol.start=file."
        )
    if how in (RANDOM, BALANCED) and protocol.start_noise:
        raise ConfigError(
            f"protocol.start_noise={protocol.start_noise} is added to a start that is not random, and "
            f"protocol.start={how}; allowed: protocol.start=file or the name of a reference, or 0."
        )
    if how not in (RANDOM, BALANCED, SPECTRAL, FILE):
        structure(config, shape, terms)
    if how in (SPECTRAL, FILE) or terms.anchor is not None:
        start_of(config, shape, terms)


def _check_room_for_frame(config: Config, shape: Shape) -> None:
    """Refuse too few dimensions for the closed form of features >= 0, which gives each class one of its own.

    Raises:
        ConfigError: there are fewer than classes. (Where theory has no closed form anyway, such as with a bias, the
            head descends without.)
    """
    head, constraint, width = config.head, config.features.constraint, config.protocol.num_features
    plain = head.loss == "cross_entropy" and head.depth == 1 and head.bias == "none" and constraint == "nonnegative"
    decays = (head.feature_decay, *config.weight_decays)
    if plain and all(decays) and config.features.anchor == "none" and width < shape.num_outputs:
        raise ConfigError(
            f"protocol.num_features={width} is less than the {shape.num_outputs} classes, and each has a dimension "
            "of its own in the closed form of head.loss=cross_entropy with head.depth=1 and "
            f"features.constraint=nonnegative; allowed: protocol.num_features from {shape.num_outputs}, or "
            "features.constraint=none."
        )


def check_images(config: Config, inputs: Inputs) -> None:
    """Refuse images that the head's loss cannot work on.

    Raises:
        ConfigError: a class is too small, or features that are the outputs are none of K scores.
    """
    counts, head = inputs.images.class_counts("train"), config.head
    check_class_sizes(config, list(counts.values()), f"data.name={config.data.name}")
    width, classes = inputs.backbone.num_features, inputs.images.num_classes
    if not head.depth and config.objective.classifies and width != classes:
        raise ConfigError(
            f"head.depth=0 makes the features the outputs, and head.loss={head.loss} fits {classes} of them, but the "
            f"backbone has {width} features; allowed: head.depth from 1, or head.loss=supervised_contrastive."
        )


def _of_the_head(config: Config) -> Iterator[str]:
    head, objective = config.head, config.objective
    if head.bias != "none" and not objective.takes_bias:
        yield f"head.bias={head.bias} does not go with head.loss={head.loss}, which has none; allowed: head.bias=none."
    if head.bias != "none" and not head.depth:
        yield f"head.bias={head.bias} does not go with head.depth=0, which has no last layer; allowed: head.bias=none."
    if head.bias_decay and head.bias == "none":
        yield f"head.bias_decay={head.bias_decay} is of a bias, and head.bias=none; allowed: 0, or head.bias=last."


def _of_precision(config: Config, protocol: Protocol) -> Iterator[str]:
    """Why `descent.precision=auto` cannot be had; without a compiler it is float64 from the start."""
    if config.descent.precision != "auto":
        return
    head, device = config.head, config.device.type
    reasons = {
        f"protocol={config.protocol.name} has none": not protocol.images or protocol.head != "descent",
        "head.inputs=free": head.inputs == "free",
        f"head.bias={head.bias} is not": head.bias != "none",
        f"head.loss={head.loss} is not": config.objective.kernel is None,
        f"there is a {device} device": device != "cpu",
    }
    for reason, given in reasons.items():
        if given:
            yield (
                "descent.precision=auto is for heads on frozen features, without a bias, that the C++ kernel descends "
                f"with on a CPU, but {reason}; allowed: float64, float32."
            )


def _of_features(config: Config, protocol: Protocol) -> Iterator[str]:
    features, head = config.features, config.head
    bound = {"features.constraint": features.constraint, "features.anchor": features.anchor}
    given = [f"{key}={value}" for key, value in bound.items() if value != "none"]
    free = protocol.head == "descent" and head.inputs == "free"
    if features.anchor != "none" and protocol.head == "joint":
        yield (
            f"features.anchor={features.anchor} ties features that are variables of their own, and those of "
            f"protocol={config.protocol.name} are a network's; allowed: none, or protocol=dufm or frozen_features with "
            "head.inputs=free."
        )
    if given and not free and protocol.head != "joint":
        yield f"{given[0]} binds free features, and head.inputs={head.inputs}; allowed: none, or head.inputs=free."
    if not head.depth and protocol.head == "descent" and not free:
        yield f"head.depth=0 with head.inputs={head.inputs} leaves nothing to move; allowed: head.inputs=free."
    if features.anchor == "none" and (features.anchor_strength or features.anchor_steps != 1):
        name = "anchor_strength" if features.anchor_strength else "anchor_steps"
        yield (
            f"features.{name}={getattr(features, name)} is of an anchor, and features.anchor=none; allowed: "
            "features.anchor=inputs or a file."
        )


def _of_shares(config: Config, protocol: Protocol) -> Iterator[str]:
    if config.descent.sharded == "true":
        yield from (f"descent.sharded=true, but {reason}." for reason in why_not_sharded(config, protocol))


def _of_images(config: Config, protocol: Protocol) -> Iterator[str]:
    """Settings of a head without images, where there are images."""
    if protocol.head == "joint" and config.protocol.regularization == "objective" and config.objective.needs_labels:
        yield (
            f"protocol.regularization=objective adds up a loss part by part, and head.loss={config.head.loss} compares "
            "samples of all parts; allowed: standard, dufm."
        )
    default = type(config.protocol)(name=config.protocol.name)
    if protocol.regresses:
        yield from _of_numbers(config)
    names = [name for name in OF_DUFM if name != "targets" or not protocol.regresses]
    for name in names if protocol.images else ():
        value = getattr(config.protocol, name)
        if value != getattr(default, name):
            yield (
                f"protocol.{name}={shown(value)} is of a head without images, and protocol={config.protocol.name} has "
                f"images; allowed: protocol=dufm, or protocol.{name}={shown(getattr(default, name))}."
            )


def _of_numbers(config: Config) -> Iterator[str]:
    """Images whose network is fitted to numbers instead of labels."""
    kind, said = config.protocol.targets, f"protocol.targets={config.protocol.targets}"
    if kind not in KINDS:
        yield f"{said} is not known where there are images; allowed: {', '.join(KINDS)}."
    if kind == LABELS:
        return
    if config.head.loss != "mse":
        yield f"{said} are numbers, and head.loss={config.head.loss} fits classes; allowed: head.loss=mse."
    if config.protocol.regularization == "objective":
        yield (
            f"{said} does not go with protocol.regularization=objective, which is measured on labels; allowed: "
            "standard, dufm."
        )
    if not config.head.depth:
        yield f"{said} needs a last layer, and head.depth=0 has none; allowed: head.depth from 1."

"""Where the head of a DUFM without images begins: random, balanced, spectral, at a point of theory, or in a file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.config import Config
from pipeline.dufm import Anchor, balanced_features, initial_features, initial_weights
from pipeline.dufm.spectral_start import spectral_factors
from pipeline.runs.known import known_about, problem_in
from pipeline.runs.matrices import read_matrix
from pipeline.runs.shapes import Shape
from pipeline.runs.solutions import Terms
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.randomness import generator
from pipeline.runtime.suggestions import did_you_mean
from pipeline.theory import Reference, named

RANDOM, BALANCED, SPECTRAL, FILE = "random", "balanced", "spectral", "file"
ONLY = {
    "srg": "K = r(r-1)/2 classes (3, 6, 10, 15, ..) in ReLU layers from depth 3 on under mse",
    "low_rank": "an even number of classes in ReLU layers from depth 2 on under cross_entropy",
}
"""References of which people ask where there are none: what has them."""


@dataclass(frozen=True)
class Start:
    """Features ``(S, N, d_1)``, weights W_l ``(S, d_{l+1}, d_l)``, and the bias of the last layer ``(S, K)`` if any."""

    features: Tensor
    weights: list[Tensor]
    bias: Tensor | None = None


def start_named(config: Config) -> str:
    """``protocol.start``, also where it is said by its older name ``protocol.features``."""
    protocol = config.protocol
    return BALANCED if protocol.start == RANDOM and protocol.features == BALANCED else protocol.start


def widths_of(config: Config) -> list[int]:
    """d_1 .. d_L; of a head without weights d_1, which is what comes out."""
    return [config.protocol.num_features] + [config.head.width] * (config.head.depth - 1)


def terms_of(config: Config, shape: Shape) -> Terms:
    """What the problem has beside labels, decays and a loss; an anchor where descent begins is `start_of`'s."""
    held = _anchor_in_file(config)
    return Terms(shape.targets, shape.num_classes, shape.has_classes, config.features.constraint, held)


def anchor_on(config: Config, features: Tensor) -> Anchor | None:
    """The anchor of free features that begin at these ``(N, d_1)``; None without one."""
    if config.features.anchor == "inputs":
        return Anchor(features.clone(), _strength(config))
    anchor = _anchor_in_file(config)
    if anchor is not None:
        _check_anchor(config, anchor, features)
    return anchor


def _check_anchor(config: Config, anchor: Anchor, features: Tensor) -> None:
    if anchor.features.shape[-2:] != features.shape[-2:]:
        found, expected = tuple(anchor.features.shape), tuple(features.shape[-2:])
        raise ConfigError(
            f"features.anchor={config.features.anchor} holds {found[0]} rows of {found[1]}; allowed: one row per "
            f"sample and one column per feature, {expected}."
        )


def _strength(config: Config) -> float:
    """beta; of T steps with mu each (arXiv 2405.00985, recalled) it is mu/T, since their path is straight (derived)."""
    return config.features.anchor_strength / config.features.anchor_steps


def _anchor_in_file(config: Config) -> Anchor | None:
    named = config.features.anchor
    if named in ("none", "inputs"):
        return None
    return Anchor(read_matrix("features.anchor", named, "features/1"), _strength(config))


def start_of(config: Config, shape: Shape, terms: Terms) -> tuple[Start, Terms]:
    """The start of every seed, and the terms, whose anchor is the features' start where it is asked for.

    Raises:
        ConfigError: the start cannot be had.
    """
    seeds = [config.seed + member for member in range(config.descent.seeds)]
    how = start_named(config)
    if how in (RANDOM, BALANCED):
        start = _random(config, shape, seeds, balanced=how == BALANCED)
    elif how == SPECTRAL:
        start = _spectral(config, shape, seeds)
    elif how == FILE:
        start = _from_file(config, shape, len(seeds))
    else:
        start = _at_reference(config, structure(config, shape, terms), seeds)
    if how not in (RANDOM, BALANCED, SPECTRAL) and config.protocol.start_noise:
        start = _noisy(config, start, seeds)
    if config.head.bias == "last" and start.bias is None:
        start = replace(start, bias=torch.zeros(len(seeds), shape.num_outputs, dtype=torch.float64))
    if terms.anchor is not None:
        _check_anchor(config, terms.anchor, start.features)
    if config.features.anchor == "inputs":
        terms = replace(terms, anchor=Anchor(start.features.clone(), _strength(config)))
    return start, terms


def structure(config: Config, shape: Shape, terms: Terms) -> Reference:
    """The reference that ``protocol.start`` names.

    Raises:
        ConfigError: theory knows none of that name here, or these layers are too narrow for it.
    """
    said, widths = f"protocol.start={config.protocol.start}", widths_of(config)
    sizes = shape.labels.bincount().tolist() if shape.has_classes else None
    problem, reason = problem_in(config, sizes, terms)
    if problem is None:
        raise ConfigError(f"{said} needs theory, and {reason}; allowed: random, balanced, spectral, file.")
    known = known_about(problem, config.objective, [10**9] * len(widths))
    if not known.points:
        raise ConfigError(f"{said} needs theory, and {known.reason}; allowed: random, balanced, spectral, file.")
    names = [RANDOM, BALANCED, SPECTRAL, FILE, *(point.name.replace(" ", "_") for point in known.points)]
    try:
        found = named(known.points, config.protocol.start)
    except ValueError as error:
        hint = did_you_mean(config.protocol.start.replace(" ", "_"), names)
        shown = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
        needed = ONLY.get(config.protocol.start.lower())
        why = f"is of {needed}, and here are {shape.num_outputs} classes" if needed else "is not known"
        raise ConfigError(f"{said} {why}; allowed: {shown}{'' if needed else hint}.") from error
    if any(width < least for width, least in zip(widths, found.widths, strict=False)):
        raise ConfigError(
            f"{said} needs layers of at least {', '.join(map(str, found.widths))} units (protocol.num_features, then "
            f"head.width), and these have {', '.join(map(str, widths))}; allowed: wider ones."
        )
    return found


def _random(config: Config, shape: Shape, seeds: Sequence[int], *, balanced: bool) -> Start:
    protocol, scale = config.protocol, config.head.init_scale
    weights = []
    if config.head.depth:
        drawn = [generator(seed, "head weights") for seed in seeds]
        weights = initial_weights(widths_of(config), shape.num_outputs, drawn, scale)
    sources = [generator(seed, "features") for seed in seeds]
    if balanced:
        decays = config.weight_decays[0], config.head.feature_decay
        features, weights[0] = balanced_features(weights[0], shape.num_samples, *decays, sources)
    else:
        scale = scale if protocol.feature_scale is None else protocol.feature_scale
        features = initial_features(shape.num_samples, protocol.num_features, sources, scale)
    return Start(features, weights)


def _spectral(config: Config, shape: Shape, seeds: Sequence[int]) -> Start:
    """Singular values around ``head.init_scale``, spread by ``protocol.start_noise``."""
    said, head = "protocol.start=spectral", config.head
    if not (shape.has_classes and head.depth and head.activation == "linear"):
        raise ConfigError(
            f"{said} aligns linear layers over classes, with head.activation={head.activation}, "
            f"head.depth={head.depth} and protocol.targets={config.protocol.targets}; allowed: linear, a depth from 1 "
            "and labels."
        )
    drawn = [generator(seed, "start") for seed in seeds]
    spread = config.protocol.start_noise
    try:
        found = spectral_factors(widths_of(config), shape.labels, shape.num_outputs, drawn, head.init_scale, spread)
    except ValueError as error:
        raise ConfigError(f"{said} cannot be built ({error}); allowed: another start or another shape.") from error
    return Start(*found)


def _at_reference(config: Config, reference: Reference, seeds: Sequence[int]) -> Start:
    widths = widths_of(config)
    nonnegative = {"nonnegative_features": True} if "nonnegative" in config.features.constraint else {}
    try:
        points = [reference.construct(widths, generator(seed, "start"), **nonnegative) for seed in seeds]
    except ValueError as error:
        raise ConfigError(f"protocol.start={config.protocol.start} cannot be built ({error}).") from error
    weights = [torch.stack(same) for same in zip(*(point.weights for point in points), strict=True)]
    biases = [getattr(point, "bias", None) for point in points]
    bias = torch.stack(biases) if config.head.bias == "last" and all(it is not None for it in biases) else None
    return Start(torch.stack([point.features for point in points]), weights, bias)


def _noisy(config: Config, start: Start, seeds: Sequence[int]) -> Start:
    """With a random start of scale ``protocol.start_noise`` added."""
    noise, (members, samples, width) = config.protocol.start_noise, start.features.shape
    sources = [generator(seed, "start noise") for seed in seeds[:members]]
    features = start.features + initial_features(samples, width, sources, noise)
    if not start.weights:
        return Start(features, [], start.bias)
    outputs = start.weights[-1].shape[-2]
    drawn = initial_weights([weight.shape[-1] for weight in start.weights], outputs, sources, noise)
    return Start(features, [weight + more for weight, more in zip(start.weights, drawn, strict=True)], start.bias)


def _from_file(config: Config, shape: Shape, members: int) -> Start:
    """As a run leaves it in ``tensors.safetensors``: member i starts at the file's i-th; one without members is shared.

    The file says how wide the layers are, each as it likes; samples, depth and outputs are the configuration's.

    Raises:
        ConfigError: a tensor is not there, is not finite, or has another shape or number of members.
    """
    path = Path(config.protocol.start_file).expanduser()
    said, depth = f"protocol.start_file={config.protocol.start_file}", config.head.depth
    names = ["features/1", *(f"weights/{layer}" for layer in range(1, depth + 1))]
    try:
        with safe_open(path, framework="pt") as stream:
            held = set(stream.keys())
            if missing := [name for name in names if name not in held]:
                raise ConfigError(f"{said} has no tensor {missing[0]}; allowed: a file with {', '.join(names)}.")
            if f"weights/{depth + 1}" in held:
                layers = sum(name.startswith("weights/") for name in held)
                raise ConfigError(f"{said} is of {layers} layers, and head.depth={depth}; allowed: the same.")
            take = [*names, *(["bias"] if config.head.bias == "last" and "bias" in held else [])]
            found = {name: stream.get_tensor(name).to(torch.float64) for name in take}
    except (OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{said} cannot be read ({reason}); allowed: a safetensors file.") from error
    widths = [found[name].shape[-1] for name in (names[1:] or names) if found[name].dim()]
    if depth and widths[:1] != [found["features/1"].shape[-1]]:
        raise ConfigError(
            f"{said}: features/1 has {found['features/1'].shape[-1]} columns, and weights/1 {widths[0]}; "
            "allowed: as many."
        )
    outputs = [*widths[1:], shape.num_outputs]
    expected = {"features/1": (shape.num_samples, *widths[:1]), "bias": (shape.num_outputs,)}
    expected |= dict(zip(names[1:], zip(outputs, widths, strict=False), strict=False))
    for name, tensor in found.items():
        found[name] = _of_members(said, name, tensor, expected[name], members)
    if not depth and config.objective.classifies and widths[0] != shape.num_outputs:
        raise ConfigError(
            f"{said}: features/1 has {widths[0]} columns, and with head.depth=0 head.loss={config.head.loss} fits "
            f"{shape.num_outputs} of them; allowed: as many."
        )
    return Start(found["features/1"], [found[name] for name in names[1:]], found.get("bias"))


def _of_members(said: str, name: str, tensor: Tensor, shape: tuple[int, ...], members: int) -> Tensor:
    own = tensor if tensor.dim() > len(shape) else tensor[None]
    if tuple(own.shape[1:]) != shape or own.dim() != len(shape) + 1:
        raise ConfigError(f"{said}: {name} has shape {tuple(tensor.shape)}; allowed: {shape} or one of these per seed.")
    if len(own) not in (1, members):
        raise ConfigError(
            f"{said}: {name} is of {len(own)} seeds, and descent.seeds={members}; allowed: descent.seeds={len(own)}, "
            "or a file of one."
        )
    if not bool(own.isfinite().all()):
        raise ConfigError(f"{said}: {name} is not finite; allowed: finite numbers.")
    return own.expand(members, *shape).clone()

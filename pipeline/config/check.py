"""From a composed config to a validated `Config`, and the one-sentence errors on the way.

The rest of the package sees the plain dataclasses of `pipeline.config.schema`, never OmegaConf. What needs PyTorch is
imported where it is asked: a value out of range is refused without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import Field, fields, is_dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pipeline.config.schema import CENTRES, LIGHTNINGS, Config, LoggerConfig, VerdictConfig
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import LARGEST, check_value, shown
from pipeline.runtime.suggestions import did_you_mean

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",)}
"""Of which a tracker needs one; the extra that brings one is called like the tracker."""
LONGEST_PROJECT, NOT_IN_PROJECT, LONGEST_TAG = 128, "/\\#?%:", 64
"""What wandb takes as the name of a project, and as a tag."""


@cache
def schema_node() -> DictConfig:
    """`Config` as OmegaConf's typed node, which takes longer to make than to copy: not to be changed."""
    return OmegaConf.structured(Config)


def settings(cfg: DictConfig) -> Config:
    """Validate a composed config as far as it does not depend on the protocol (`pipeline.runs.checking` does the rest).

    Args:
        cfg: the job's config as Hydra composed it (without its ``hydra`` node).

    Raises:
        ConfigError: a value is out of range or does not fit another one.
        OmegaConfBaseException: an unknown key, a wrong type, a value that is missing (see `pipeline.config.messages`).
    """
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{key}=??? is missing; allowed: a value, see --help.")
    # Through a plain container: a typed node would let keys added with `+` pass.
    config = from_plain(OmegaConf.to_container(cfg))
    for key, value, entry in _knobs(config):
        check_value(key, value, entry)
    _check_weight_decay(config)
    _check_thresholds(config)
    _check_sizes(config)
    _check_device(config)
    _check_callbacks(config.trainer.callbacks)
    _check_trackers(config.logger)
    if "wandb" in (config.logger.name, *config.logger.also):
        _check_tracking(config.logger)
    return config


def from_plain(values: dict[str, Any]) -> Config:
    """A configuration from the plain containers that `dataclasses.asdict` makes of one, e.g. in another process."""
    own = _departing(values, _defaults())
    return OmegaConf.to_object(OmegaConf.merge(schema_node(), own))  # type: ignore[return-value]


@cache
def _defaults() -> dict[str, Any]:
    return OmegaConf.to_container(schema_node())  # type: ignore[return-value]


def _departing(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What is not the schema's default anyway: to merge nine tenths less takes a third of the time."""
    own = {}
    for key, value in values.items():
        default = defaults.get(key, ...)
        if isinstance(value, dict) and isinstance(default, dict):
            if inner := _departing(value, default):
                own[key] = inner
        elif isinstance(value, list) or type(value) is not type(default) or value != default:
            own[key] = value
    return own


def _knobs(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Field]]:
    for entry in fields(node):
        value = getattr(node, entry.name)
        key = f"{prefix}{entry.name}"
        if is_dataclass(value):
            yield from _knobs(value, f"{key}.")
        else:
            yield key, value, entry


def _check_weight_decay(config: Config) -> None:
    decay, depth = config.head.weight_decay, config.head.depth
    if not isinstance(decay, int | float | list) or isinstance(decay, bool):
        raise ConfigError(f"head.weight_decay={decay} is not a number; allowed: one number >= 0, or one per layer.")
    if isinstance(decay, list) and len(decay) != depth:
        raise ConfigError(
            f"head.weight_decay={shown(decay)} has {len(decay)} values; "
            f"allowed: one number, or head.depth={depth} of them."
        )


def _check_sizes(config: Config) -> None:
    least, most = config.measure.min_samples, config.measure.max_samples
    if most is not None and most < least:
        raise ConfigError(
            f"measure.max_samples={most} leaves no class; allowed: at least measure.min_samples={least}, or null."
        )


def _check_thresholds(config: Config) -> None:
    """Of metrics that have no key of their own."""
    given, own = config.verdict.thresholds, {entry.name for entry in fields(VerdictConfig)} - {"thresholds"}
    if given is None:
        return
    from pipeline.dufm.objectives import known_objectives, load_objective
    from pipeline.metrics.registry import metrics

    judged = {promise.metric for name in known_objectives() for promise in load_objective(name).collapse}
    known = sorted((judged | set(metrics())) - own)
    if not isinstance(given, dict):
        raise ConfigError(f"verdict.thresholds={given} is no mapping; allowed: {{metric: number, ...}}, or null.")
    for name, value in given.items():
        if name in own:
            raise ConfigError(f"verdict.thresholds={{{name}: ...}} has a key of its own; allowed: verdict.{name}.")
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"verdict.thresholds={{{name}: ...}} is not a metric; allowed: {', '.join(known)}{hint}.")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value <= LARGEST:
            raise ConfigError(f"verdict.thresholds={{{name}: {value}}} is out of range; allowed: a finite number > 0.")


def _check_trackers(logger: LoggerConfig) -> None:
    """Which there are, whether they are installed, and what only some of them do."""
    named = [logger.name, *logger.also]
    known = ("wandb", *LIGHTNINGS)
    for name in logger.also:
        if name not in known or named.count(name) > 1 or logger.name == "none":
            hint = "" if name in known else did_you_mean(name, known)
            others = [other for other in known if other != logger.name]
            raise ConfigError(
                f"logger.also={shown(logger.also)} does not go with logger={logger.name}; allowed: others of "
                f"{', '.join(others)} beside one of them{hint}."
            )
    for name in named:
        if name in PACKAGES and not any(map(find_spec, PACKAGES[name])):
            key = f"logger={name}" if name == logger.name else f"logger.also={shown(logger.also)}"
            raise ConfigError(
                f"{key} needs a package that is not installed; allowed: pip install 'deep-neural-collapse[{name}]', or "
                "logger=csv."
            )
    able = {"alert": ("wandb",), "artifact": ("wandb",), "histograms": ("wandb", "tensorboard")}
    for key, takers in able.items():
        if getattr(logger, key) and logger.name != "none" and not set(takers) & set(named):
            raise ConfigError(f"logger.{key}=true needs {' or '.join(takers)}, not {shown(named)}; allowed: false.")
    if logger.runs == "per_seed" and logger.name not in ("wandb", "none"):
        raise ConfigError(f"logger.runs=per_seed needs logger=wandb, not {logger.name}; allowed: per_job.")


def _check_tracking(logger: LoggerConfig) -> None:
    """What wandb would refuse when the run has begun."""
    project = logger.project
    if not 1 <= len(project.strip()) <= len(project) <= LONGEST_PROJECT or set(project) & set(NOT_IN_PROJECT):
        raise ConfigError(
            f"logger.project={project} is no name for wandb; allowed: 1 to {LONGEST_PROJECT} characters, none of "
            f"{' '.join(NOT_IN_PROJECT)}."
        )
    entity = logger.entity
    if entity is not None and (not 1 <= len(entity) <= LONGEST_TAG or set(entity) & {*NOT_IN_PROJECT, " "}):
        raise ConfigError(
            f"logger.entity={entity} is no team or user of wandb's; allowed: 1 to {LONGEST_TAG} characters, no blank, "
            f"none of {' '.join(NOT_IN_PROJECT)}, or null."
        )
    for tag in logger.tags:
        if not 1 <= len(tag) <= LONGEST_TAG:
            raise ConfigError(
                f"logger.tags={shown(logger.tags)} has a tag of {len(tag)} characters; allowed by wandb: 1 to "
                f"{LONGEST_TAG} in each."
            )


def _check_callbacks(given: Any) -> None:
    """Their form; whether they are callbacks is asked where they are made (`pipeline.runs.training.callbacks`)."""
    if given is None:
        return
    form = "allowed: [{_target_: package.module.Class, argument: value, ...}, ...], or null"
    if not isinstance(given, list):
        raise ConfigError(f"trainer.callbacks={given} is no list; {form}.")
    for entry in given:
        if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
            raise ConfigError(f"trainer.callbacks has {entry}, which is no mapping; {form}.")
        if not isinstance(entry.get("_target_"), str):
            raise ConfigError(f"trainer.callbacks has {entry}, which names no class; {form}.")


def _check_device(config: Config) -> None:
    if config.trainer.accelerator == "gpu" and config.device.type != "cuda":
        raise ConfigError("trainer.accelerator=gpu, but PyTorch finds no CUDA device here; allowed: auto, cpu.")
    if config.descent.precision == "tf32" and config.device.type != "cuda":
        raise ConfigError("descent.precision=tf32 needs a CUDA device; allowed here: float64, float32.")
    if config.trainer.precision == "tf32" and config.device.type != "cuda":
        raise ConfigError("trainer.precision=tf32 needs a CUDA device; allowed here: float32, float64, bf16, auto.")


def check_data(config: Config) -> None:
    """Refuse a request for images that cannot be met; nothing is loaded.

    Raises:
        ConfigError: a setting of ``data`` does not go with another one, or names files that are not there.
    """
    from pipeline.data import validate_request

    data = config.data
    if not isinstance(data.classes, list | None):
        raise ConfigError(f"data.classes={data.classes} is not a list; allowed: [a,b,...] by index or name, or null.")
    with _as_config_errors():
        validate_request(data.name, **data.request)


def check_backbone(config: Config) -> None:
    """Refuse a request for a network that cannot be met; nothing is built.

    Raises:
        ConfigError: a setting of ``backbone`` does not go with another one, or names a model that is not there.
    """
    from pipeline.dufm.objectives import known_objectives, load_objective
    from pipeline.networks import validate_backbone

    _check_weights(config)
    _check_layers(config)
    if config.backbone.loss != CENTRES and not load_objective(config.backbone.loss).classifies:
        able = [name for name in known_objectives() if load_objective(name).classifies]
        raise ConfigError(
            f"backbone.loss={config.backbone.loss} trains no classifier; allowed: {', '.join(able)}, or "
            f"protocol=end_to_end with head.loss={config.backbone.loss}."
        )
    with _as_config_errors():
        validate_backbone(config.backbone.name, **config.backbone.request)


@contextmanager
def _as_config_errors() -> Iterator[None]:
    """Errors of files and values, which name the setting, become errors of the configuration."""
    try:
        yield
    except OSError as error:
        raise unusable(error) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def unusable(error: OSError) -> ConfigError:
    """The error for a file or folder that the system refuses, whatever setting named it."""
    reason = error.strerror or str(error)
    return ConfigError(f"{error.filename or 'a file'} cannot be used ({reason}); allowed: what can be read.")


def _check_weights(config: Config) -> None:
    given = {
        key: value
        for key in ("from_run", "checkpoint", "checkpoints", "pretrained")
        if (value := getattr(config.backbone, key)) not in (None, False)
    }
    if len(given) > 1:
        named = " and ".join(f"backbone.{key}={value}" for key, value in given.items())
        raise ConfigError(f"{named} both give the backbone's weights; allowed: one of them.")


def _check_layers(config: Config) -> None:
    """Patterns of layers, and how they are read, as far as it does not depend on the network."""
    layers, read = config.backbone.layers, config.backbone.read
    if layers is not None and not (isinstance(layers, list) and layers and all(isinstance(one, str) for one in layers)):
        raise ConfigError(
            f"backbone.layers={shown(layers)} is no list of patterns; allowed: [layer*,fc:pre,**.attn], or null."
        )
    if read is None:
        return
    from pipeline.networks.reading import READINGS, Reading

    if not isinstance(read, dict) or not all(isinstance(pattern, str) for pattern in read):
        raise ConfigError(f"backbone.read={shown(read)} is no mapping; allowed: {{pattern: {READINGS}, ...}}, or null.")
    for pattern, how in read.items():
        try:
            Reading.of(how)
        except ValueError as error:
            raise ConfigError(
                f"backbone.read={{{pattern}: {how}}} is no way to read a layer; allowed: {READINGS}."
            ) from error

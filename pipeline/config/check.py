"""From a composed config to a validated `Config`, and the one-sentence errors on the way.

The rest of the package sees the plain dataclasses of `pipeline.config.schema`, never OmegaConf.
"""

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from pipeline.config.schema import Config
from pipeline.data import validate_request
from pipeline.networks import validate_backbone
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.memory import head_bytes, require_memory
from pipeline.runtime.settings import check_value, shown


def conf_folder() -> Path:
    """Absolute path of ``conf/``: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "main.yaml").is_file():
            return folder
    raise FileNotFoundError(f"conf/main.yaml is neither in {package} nor beside it: the installation is incomplete")


def settings(cfg: DictConfig) -> Config:
    """Validate a composed config.

    Args:
        cfg: the job's config as Hydra composed it (without its ``hydra`` node).

    Raises:
        ConfigError: a value is out of range, does not fit another one, or names data that are not there.
        OmegaConfBaseException: an unknown key, a wrong type, a value that is missing (see `pipeline.config.messages`).
    """
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{key}=??? is missing; allowed: a value, see --help.")
    # Through a plain container: a typed node would let keys added with `+` pass.
    typed = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.to_container(cfg))
    config: Config = OmegaConf.to_object(typed)  # type: ignore[assignment]
    for key, value, entry in _knobs(config):
        check_value(key, value, entry)
    _check_weight_decay(config)
    _check_device(config)
    if config.uses_images:
        _check_images(config)
    else:
        _check_memory(config)
    return config


def from_plain(values: dict[str, Any]) -> Config:
    """A configuration from the plain containers that `dataclasses.asdict` makes of one, e.g. in another process."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values))  # type: ignore[return-value]


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
        raise ConfigError(f"head.weight_decay={decay} is not a number; allowed: one number > 0, or one per layer.")
    if isinstance(decay, list) and len(decay) != depth:
        raise ConfigError(
            f"head.weight_decay={shown(decay)} has {len(decay)} values; "
            f"allowed: one number, or head.depth={depth} of them."
        )


def _check_device(config: Config) -> None:
    if config.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer.accelerator=gpu, but PyTorch finds no CUDA device here; allowed: auto, cpu.")
    if config.descent.precision == "tf32" and config.device.type != "cuda":
        raise ConfigError("descent.precision=tf32 needs a CUDA device; allowed here: float64, float32.")


def _check_memory(config: Config) -> None:
    """Of the DUFM by itself; with images, `pipeline.runs.inputs` knows how many there are."""
    head, protocol, seeds = config.head, config.protocol, config.descent.seeds
    widths = [protocol.num_features] + [head.width] * (head.depth - 1)
    num_samples = protocol.num_classes * protocol.samples_per_class
    needed = head_bytes(seeds, num_samples, widths, protocol.num_classes, free=head.inputs == "free")
    require_memory(
        needed,
        f"descent.seeds={seeds}, head.depth={head.depth}, head.width={head.width}, "
        f"protocol.num_classes={protocol.num_classes}, protocol.samples_per_class={protocol.samples_per_class} and "
        f"protocol.num_features={protocol.num_features}",
        config.device,
    )


def _check_images(config: Config) -> None:
    data, backbone = config.data, config.backbone
    if not isinstance(data.classes, list | None):
        raise ConfigError(f"data.classes={data.classes} is not a list; allowed: [a,b,...] by index or name, or null.")
    _check_weights(config)
    if config.trains_head_with_backbone:
        _check_joint_training(config)
    try:
        validate_request(data.name, **data.request)
        validate_backbone(backbone.name, **backbone.request)
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
        for key in ("from_run", "checkpoint", "pretrained")
        if (value := getattr(config.backbone, key)) not in (None, False)
    }
    if len(given) > 1:
        named = " and ".join(f"backbone.{key}={value}" for key, value in given.items())
        raise ConfigError(f"{named} both give the backbone's weights; allowed: one of them.")


def _check_joint_training(config: Config) -> None:
    """Settings of a classifier, or of a head by itself, mean nothing where the two are trained together."""
    for key, value, only in (
        ("backbone.loss", config.backbone.loss, "mse"),
        ("head.inputs", config.head.inputs, "frozen"),
    ):
        if value != only:
            raise ConfigError(
                f"{key}={value} does not go with protocol={config.protocol.name}, which fits a DUFM head with MSE on "
                f"the backbone's features; allowed: {key}={only}."
            )

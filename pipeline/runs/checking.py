"""From a composed config to one that can be run: what `pipeline.config` checks, and what the protocol needs."""

from omegaconf import DictConfig

from pipeline.config import BackboneConfig, Config, HeadConfig, check_backbone, check_data, settings
from pipeline.config.schema import CENTRES
from pipeline.runs.protocols import Protocol, protocol_named, protocol_names
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.interruption import interruption
from pipeline.views.wandb.limits import check_environment


def checked(cfg: DictConfig) -> Config:
    """Validate a composed config, without loading or building anything.

    Args:
        cfg: the job's config as Hydra composed it (without its ``hydra`` node).

    Raises:
        ConfigError: a value is out of range, does not fit another one or the protocol, or names data that are not
            there.
        OmegaConfBaseException: an unknown key, a wrong type, a value that is missing (see `pipeline.config.messages`).
    """
    config = settings(cfg)
    _load_torch()
    protocol = protocol_named(config.protocol.name)
    if protocol.images:
        check_data(config)
    if protocol.network:
        check_backbone(config)
    if protocol.network and config.backbone.checkpoints is not None and not protocol.states:
        taking = [name for name in protocol_names() if protocol_named(name).states]
        raise ConfigError(
            f"backbone.checkpoints={config.backbone.checkpoints} does not go with protocol={config.protocol.name}; "
            f"allowed: protocol={' or '.join(taking)}, or backbone.checkpoint of a single file."
        )
    if protocol.network:
        _check_regularization(config, protocol)
        _check_centres(config, protocol)
        _check_mixup(config, protocol)
    if config.trainer.callbacks:
        _check_callbacks(config, protocol)
    if protocol.head == "joint":
        _check_joint_training(config)
    if protocol.head is not None:
        from pipeline.runs.head_checks import check_head  # here: what `settings` refuses needs no PyTorch

        check_head(config, protocol)
    if protocol.check:
        protocol.check(config)
    if "wandb" in (config.logger.name, *config.logger.also):
        check_environment()
    return config


def _load_torch() -> None:
    """Import PyTorch, whose C code drops what a signal raises in it, and leaves half of NumPy.

    Raises:
        Interrupted: a signal came meanwhile.
    """
    with interruption.deferred():
        import torch  # noqa: F401
    interruption.exit_if_signalled()


def _check_callbacks(config: Config, protocol: Protocol) -> None:
    """Lightning has to train something, and the classes have to be callbacks that take what they are given."""
    if not protocol.network:
        seeing = [name for name in protocol_names() if protocol_named(name).network]
        raise ConfigError(
            f"trainer.callbacks does not go with protocol={config.protocol.name}, which trains nothing with Lightning: "
            f"callbacks do not see our own descent; allowed: protocol={', '.join(seeing)}, or null."
        )
    from pipeline.runs.training.callbacks import user_callbacks  # loads Lightning

    user_callbacks(config)


def _check_regularization(config: Config, protocol: Protocol) -> None:
    """What is penalised has to be there, and somebody has to do it."""
    settings, optimizer = config.protocol, config.optimizer
    if settings.regularization == "dufm" and protocol.states:
        raise ConfigError(
            f"protocol.regularization=dufm needs a DUFM head, which protocol={settings.name} does not have; allowed: "
            "standard, objective."
        )
    if settings.penalty_weights != "equal" and settings.regularization != "objective":
        raise ConfigError(
            f"protocol.penalty_weights={settings.penalty_weights} needs protocol.regularization=objective, not "
            f"{settings.regularization}; allowed: equal, or that regularization."
        )
    if settings.penalty_weights == "steps" and not (config.backbone.name == "residual_mlp" and config.backbone.leak):
        raise ConfigError(
            "protocol.penalty_weights=steps needs a leaky network; allowed: backbone=residual_mlp with "
            "backbone.leak > 0, or another protocol.penalty_weights."
        )
    if optimizer.name == "lbfgs" and optimizer.weight_decay and settings.regularization == "standard":
        raise ConfigError(
            f"optimizer.weight_decay={optimizer.weight_decay:g} is nothing that optimizer.name=lbfgs can do by itself; "
            "allowed: protocol.regularization=objective, which makes it a term of the loss, or 0."
        )


def _check_centres(config: Config, protocol: Protocol) -> None:
    """Fixed centres stand in for the classifier of a network that is trained and measured, and for nothing else."""
    backbone = config.backbone
    if backbone.loss != CENTRES:
        return
    given = [key for key in ("checkpoints", "checkpoint", "from_run") if getattr(backbone, key) is not None]
    if not protocol.states or given or config.stop_when_collapsed:
        what = f"backbone.{given[0]}" if given else "stop_when_collapsed=true"
        what = what if protocol.states else f"protocol={config.protocol.name}"
        raise ConfigError(
            f"backbone.loss={CENTRES} does not go with {what}; allowed: protocol=network, a network that it trains."
        )


def _check_mixup(config: Config, protocol: Protocol) -> None:
    """Images are mixed for a classifier's training, step by step."""
    if not config.backbone.mixup:
        return
    from pipeline.data.registry import find  # here: it loads PyTorch

    text = find(config.data.name).kind == "text"
    if protocol.head == "joint" or config.optimizer.name == "lbfgs" or text:
        what = f"protocol={config.protocol.name}" if protocol.head == "joint" else "optimizer.name=lbfgs"
        what = f"data={config.data.name}" if text else what
        raise ConfigError(
            f"backbone.mixup={config.backbone.mixup:g} does not go with {what}; allowed: 0, or a training under a "
            "classifier, of images or vectors, by another optimizer."
        )


def _check_joint_training(config: Config) -> None:
    """Settings of a classifier, or of a head by itself, mean nothing where the two are trained together."""
    for key, value, only in (
        ("backbone.loss", config.backbone.loss, BackboneConfig.loss),
        ("head.inputs", config.head.inputs, HeadConfig.inputs),
    ):
        if value != only:
            raise ConfigError(
                f"{key}={value} does not go with protocol={config.protocol.name}, which fits a DUFM head with "
                f"head.loss={config.head.loss} on the backbone's features; allowed: {key}={only}."
            )

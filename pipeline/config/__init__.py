"""Every knob of a run, and the check of its values."""

from pipeline.config.check import check_backbone, check_data, from_plain, settings, unusable
from pipeline.config.folder import conf_folder
from pipeline.config.schema import (
    BackboneConfig,
    Config,
    DataConfig,
    DescentConfig,
    FeaturesConfig,
    HeadConfig,
    LoggerConfig,
    OptimizerConfig,
    ProtocolConfig,
    RecordConfig,
    TrainerConfig,
    VerdictConfig,
)
from pipeline.runtime.settings import allowed, choices_of

__all__ = [
    "BackboneConfig",
    "Config",
    "DataConfig",
    "DescentConfig",
    "FeaturesConfig",
    "HeadConfig",
    "LoggerConfig",
    "OptimizerConfig",
    "ProtocolConfig",
    "RecordConfig",
    "TrainerConfig",
    "VerdictConfig",
    "allowed",
    "check_backbone",
    "check_data",
    "choices_of",
    "conf_folder",
    "from_plain",
    "settings",
    "unusable",
]

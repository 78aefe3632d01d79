"""Typed settings of a study: every key a user may write, its meaning, its default, and what is refused.

The JSON schema in workflow/schemas is generated from these classes (`mdm schema`).
"""

from mdm.config.audit import AuditConfig, EmmConfig
from mdm.config.base import (
    NAME,
    SHA256,
    Count,
    Decay,
    Layers,
    Name,
    Positive,
    Probability,
    Seed,
    Strict,
    StudyError,
    Width,
    nearest,
)
from mdm.config.cascade import AugmentationConfig, LowConfig, UpsamplesConfig
from mdm.config.diffusion import DiffusionConfig, SampleConfig
from mdm.config.instruments import WeightsConfig
from mdm.config.network import LevelConfig, ModelConfig, NetworkConfig, VideoConfig
from mdm.config.protocol import ProtocolConfig
from mdm.config.run import RunConfig
from mdm.config.song import SongConfig, SongSettings
from mdm.config.study import (
    AblationConfig,
    AlongConfig,
    ClaimConfig,
    DataConfig,
    EncoderConfig,
    ExcessConfig,
    InstrumentConfig,
    StudyConfig,
)
from mdm.config.training import ResourceConfig, StageConfig, TrainConfig, TrainingResources

__all__ = [
    "NAME", "SHA256", "AblationConfig", "AlongConfig", "AuditConfig", "AugmentationConfig", "ClaimConfig",
    "Count", "DataConfig", "Decay",
    "DiffusionConfig", "EmmConfig", "EncoderConfig", "ExcessConfig", "InstrumentConfig", "Layers", "LevelConfig",
    "LowConfig", "ModelConfig", "Name",
    "NetworkConfig", "Positive", "Probability", "ProtocolConfig", "ResourceConfig", "RunConfig", "SampleConfig", "Seed",
    "SongConfig", "SongSettings", "StageConfig", "Strict", "StudyConfig", "StudyError", "TrainConfig",
    "TrainingResources", "UpsamplesConfig", "VideoConfig", "WeightsConfig", "Width", "nearest",
]  # fmt: skip

"""All settings of a run, in one place to import from. Imports nothing slow."""

from heads.model_config import AGGREGATORS, Centres, HeadName, ModelConfig, PoolingName
from heads.split_config import SimilarityTool, SplitConfig, SplitUnit
from heads.train_config import LossName, Precision, Resident, Schedule, TrainConfig

__all__ = [
    "AGGREGATORS",
    "Centres",
    "HeadName",
    "LossName",
    "ModelConfig",
    "PoolingName",
    "Precision",
    "Resident",
    "Schedule",
    "SimilarityTool",
    "SplitConfig",
    "SplitUnit",
    "TrainConfig",
]

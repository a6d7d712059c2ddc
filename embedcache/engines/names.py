"""Names of the engines, for the command line; imports nothing slow."""

from typing import Literal

__all__ = ["EngineName"]

EngineName = Literal["local", "ray", "slurm"]

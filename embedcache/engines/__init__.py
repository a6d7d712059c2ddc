"""Engines start the workers of a build. What makes a build right lies in the store, so any may be lost."""

from embedcache.engines.run import Engine, WorkerEnd, run_build

__all__ = ["Engine", "WorkerEnd", "run_build"]

"""Engines start the workers of a build. What makes a build right lies in the store, so any may be lost."""

from embedcache.engines.run import Engine, Job, WorkerEnd, choose_engine, one_a_gpu, run_build

__all__ = ["Engine", "Job", "WorkerEnd", "choose_engine", "one_a_gpu", "run_build"]

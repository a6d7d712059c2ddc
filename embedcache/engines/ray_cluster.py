"""Workers as tasks of Ray Core, on a cluster that runs or on one started for the build on this machine.

Nothing passes through Ray but the job and one report a worker: tokens go from worker to store. Ray never runs a task
again by itself (``max_retries=0``), since only the store knows whether a lost worker was poisoned or preempted.
"""

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from embedcache.engines.options import number, read_options, text
from embedcache.engines.run import Job, WorkerEnd
from embedcache.engines.supervise import Lost, supervise, take_part
from embedcache.errors import EmbedCacheError, InvalidSettingError, MissingDependencyError
from embedcache.interrupt import stop_at_once
from embedcache.progress import Progress

__all__ = ["RayEngine"]

log = logging.getLogger(__name__)

OPTIONS = {"address": text, "num_cpus": number, "num_gpus": number, "memory_gb": number}
OBJECT_STORE_BYTES = 80 << 20
"""The least that Ray takes; we put nothing into it."""


@dataclass(frozen=True, slots=True)
class RayEngine:
    """See ``Engine``. Nodes need isoheads, and the dataset and the cache under the same paths, or an object store.

    Attributes:
        options: ``address`` of a cluster (``auto``, ``host:port``, ``ray://...``; default: RAY_ADDRESS, else one is
            started here and shut down afterwards); for each worker ``num_cpus`` (default: 1, or here its share of the
            cores), ``num_gpus`` (default: 1 if the build may use a GPU and the cluster has one) and ``memory_gb``.
    """

    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse options that there are not, before anything is prepared."""
        read_options("ray", self.options, OPTIONS)

    def run(self, job: Job, *, workers: int) -> Iterator[WorkerEnd]:
        """Start workers and yield how each ended, see ``supervise``.

        Raises:
            MissingDependencyError: Ray is not installed.
            InvalidSettingError: An option that there is not, or a device that only Ray can choose.
            EmbedCacheError: The cluster cannot be reached, or could never run a worker.
        """
        wanted = read_options("ray", self.options, OPTIONS)
        if job.device not in ("auto", "cpu", "cuda"):
            raise InvalidSettingError(f"device {job.device!r}: Ray chooses which GPU a worker gets. Use --device cuda.")
        with _cluster(wanted.get("address"), workers, wanted.get("num_cpus")) as (ray, cores):
            needs = _needs(ray, job, wanted, cores)
            if needs["num_gpus"] == 0:
                job = job.on_cpu()  # or "auto" would take GPUs that are given to others
            yield from supervise(_Tasks(ray, needs), job, workers)


@contextmanager
def _cluster(address: str | None, workers: int, num_cpus: float | None) -> Iterator[tuple[Any, float]]:
    """Ray, connected, and the cores that a worker is to have. What was started here is shut down at the end."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    ray = _import_ray(address)
    if ray.is_initialized():
        yield ray, 1 if num_cpus is None else num_cpus
        return
    settings: dict[str, Any] = {"address": address, "logging_level": logging.WARNING}
    cores = 1.0 if num_cpus is None else num_cpus
    if address == "local":
        here = len(os.sched_getaffinity(0))
        cores = max(1, here // workers) if num_cpus is None else num_cpus
        settings |= {
            "num_cpus": max(here, -int(-cores * workers // 1)),  # all that were asked for are to run
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    try:
        with stop_at_once("Stopped while Ray was started. Run the same command to go on."):
            _check_answers(address)
            ray.init(**settings)
    except Exception as error:  # the only net that is so wide: a cluster that does not come up is a bare Exception
        if not _is_of_ray(error, ray):
            raise
        raise _no_cluster(address, error) from error
    try:
        yield ray, cores
    finally:
        ray.shutdown()


def _is_of_ray(error: Exception, ray: Any) -> bool:
    """Whether it says that Ray cannot start or be reached, and no bug of ours."""
    return type(error) is Exception or isinstance(error, OSError | ValueError | RuntimeError | ray.exceptions.RayError)


def _no_cluster(address: str, error: Exception) -> EmbedCacheError:
    words = " ".join(str(error).split()).removesuffix(".")
    if address == "local":
        return EmbedCacheError(
            f"Ray could not be started on this machine: {words}. The logs of its last session may say why (memory, "
            "disk, limits); or leave Ray out: --engine local starts the same workers."
        )
    return EmbedCacheError(
        f"no Ray cluster at {address}: {words}. Give --engine-option address=host:port of one that runs, or "
        "address=local to start one."
    )


def _check_answers(address: str) -> None:
    """Raise OSError unless somebody listens there: Ray itself would try for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _import_ray(address: str) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray listens on all interfaces of this machine, whatever it is told: whoever calls must know a secret. It reads
    # this on import, and what is changed later shuts its own processes out.
    if address == "local" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingDependencyError(
            "the ray engine needs Ray, which is not installed. Run `pip install 'isoheads[ray]'`."
        ) from error
    return ray


def _needs(ray: Any, job: Job, wanted: Mapping[str, Any], cores: float) -> dict[str, Any]:
    """What Ray is to set aside for each worker."""
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0
    use_gpu = job.device == "cuda" or (job.device == "auto" and has_gpu)
    needs = {"num_cpus": cores, "num_gpus": wanted.get("num_gpus", 1.0 if use_gpu else 0.0)}
    if job.device == "cuda" and needs["num_gpus"] == 0:
        raise InvalidSettingError("--device cuda with num_gpus=0: a worker would have no GPU. Leave one of them out.")
    if "memory_gb" in wanted:
        needs["memory"] = int(wanted["memory_gb"] * 1e9)
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(names[name], 0) >= amount for name, amount in needs.items()) for node in nodes):
        asked = ", ".join(f"{name} {amount:g}" for name, amount in needs.items())
        raise EmbedCacheError(
            f"no node of the Ray cluster has what a worker needs ({asked}): {len(nodes)} nodes, "
            f"{ray.cluster_resources().get('CPU', 0):g} CPUs, {ray.cluster_resources().get('GPU', 0):g} GPUs in all. "
            "Lower --engine-option num_cpus, num_gpus or memory_gb, or add a node."
        )
    return needs


@dataclass(frozen=True, slots=True)
class _Tasks:
    """See ``Fleet``; a worker is the reference to what its task returns."""

    ray: Any
    needs: Mapping[str, Any]
    told: set[Any] = field(default_factory=set)

    def start(self, job: Job, number: int) -> Any:
        # one task a process: it may hold a GPU, or have lost it
        task = self.ray.remote(max_retries=0, max_calls=1, scheduling_strategy="SPREAD", **self.needs)(_work)
        return task.options(name=f"embedcache worker {number}").remote(job, number)

    def ended(self, running: Mapping[int, Any]) -> list[tuple[int, WorkerEnd | Lost]]:
        ready, _ = self.ray.wait(list(running.values()), num_returns=1, timeout=0.2)
        return [(number, self._end_of(reference)) for number, reference in running.items() if reference in ready]

    def stop(self, worker: Any) -> None:
        # as Ctrl-C there, which a worker takes as a request to stop
        self.ray.cancel(worker, force=worker in self.told)
        self.told.add(worker)

    def _end_of(self, reference: Any) -> WorkerEnd | Lost:
        errors = self.ray.exceptions
        try:
            end = self.ray.get(reference)
        except errors.TaskCancelledError:
            return Lost("it was cancelled")
        except (errors.RayTaskError, errors.RuntimeEnvSetupError, errors.TaskUnschedulableError) as error:
            last = str(error).strip().splitlines()[-1]
            return WorkerEnd(None, f"a worker ended with a traceback ({last}), see the logs of Ray")
        except errors.RayError as error:
            return Lost(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        assert isinstance(end, WorkerEnd | Lost)
        return end


def _work(job: Job, number: int) -> WorkerEnd | Lost:
    """The worker, in a process of Ray."""
    Progress.hidden = number > 0  # each worker counts the work of all, and Ray shows what all of them print
    return take_part(job)

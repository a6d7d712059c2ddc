"""Workers as SLURM jobs, submitted and watched through submitit; jobs that are preempted are submitted again.

The command waits for its jobs, but they need it not: they share the work through the cache, and go on when it is gone.
"""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedcache.engines.options import number, read_options, text, whole_number
from embedcache.engines.run import Job, WorkerEnd
from embedcache.engines.supervise import Lost, supervise, take_part
from embedcache.errors import EmbedCacheError, InvalidSettingError, MissingDependencyError

__all__ = ["SlurmEngine"]

log = logging.getLogger(__name__)

OF_SLURM = ("partition", "account", "qos", "constraint", "gres", "exclude", "nodelist", "comment", "wckey", "setup")
OPTIONS = {
    **dict.fromkeys(OF_SLURM, text),
    **dict.fromkeys(("time", "gpus_per_node", "cpus_per_task", "signal_delay_s"), whole_number),
    "mem_gb": number,
    "name": text,
    "folder": text,
    "cluster": text,
}
FOLDER = "embedcache-slurm"
MINUTES = 240
POLL_SECONDS = 0.5
ASK_SECONDS = 20.0
"""How often SLURM is asked for the state of jobs; whether a job left its result is seen at once."""
GRACE_SECONDS = 20.0
"""A network disk may show the result of a job that late after its end."""
PREEMPTED_SECONDS = 60.0
"""A preempted job that SLURM has not queued again for so long does not come back."""
STOP_SECONDS = 180.0
"""A job that was cancelled and gave no sign for so long is left alone; its lease tells other workers that it died."""

STOPPED = "it was cancelled and gave no sign"


@dataclass(frozen=True, slots=True)
class SlurmEngine:
    """See ``Engine``. The directory of the command, the dataset and the cache must be on a disk that all nodes share.

    Attributes:
        options: ``time`` (minutes, default 240), ``gpus_per_node`` (default 1 with the device ``cuda``),
            ``cpus_per_task``, ``mem_gb``, ``partition``, ``account``, ``qos``, ``constraint``, ``gres``, ``exclude``,
            ``nodelist``, ``comment``, ``wckey``, ``name``, ``setup`` (a shell command before each worker),
            ``signal_delay_s`` (how long before its time is up a job is told to commit, default 90), ``folder`` (of the
            logs, default ``embedcache-slurm``), ``cluster`` (``slurm``, or ``local`` to try it without one).
    """

    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse options that there are not, before anything is prepared."""
        read_options("slurm", self.options, OPTIONS)

    def run(self, job: Job, *, workers: int) -> Iterator[WorkerEnd]:
        """Submit workers and yield how each ended, see ``supervise``.

        Raises:
            MissingDependencyError: submitit is not installed.
            InvalidSettingError: An option that there is not.
            EmbedCacheError: No SLURM here, or it refuses the jobs.
        """
        wanted = read_options("slurm", self.options, OPTIONS)
        cluster, folder = wanted.pop("cluster", "slurm"), Path(wanted.pop("folder", FOLDER)).absolute()
        if cluster not in ("slurm", "local"):
            raise InvalidSettingError(f"--engine-option cluster={cluster} is not known. Choose slurm or local.")
        if job.device == "cuda":
            wanted.setdefault("gpus_per_node", 1)
        if job.device == "auto" and not {"gpus_per_node", "gres"} & wanted.keys():
            log.warning("no GPU is asked for: workers use one only where SLURM gives it. Add --device cuda for one.")
        executor = _executor(cluster, folder, wanted)
        log.warning("logs of the jobs are in %s", folder)
        yield from supervise(_Jobs(executor, cluster, folder), job, workers)


def _executor(cluster: str, folder: Path, wanted: Mapping[str, Any]) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise MissingDependencyError(
            "the slurm engine needs submitit, which is not installed. Run `pip install 'isoheads[slurm]'`."
        ) from error
    settings = {"name": "embedcache", "timeout_min": MINUTES, **wanted}
    if "time" in settings:
        settings["timeout_min"] = settings.pop("time")
    if "setup" in settings:
        settings["setup"] = [settings["setup"]]
    for name in (*OF_SLURM, "signal_delay_s"):
        if name in settings:
            settings[f"slurm_{name}"] = settings.pop(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        executor = submitit.AutoExecutor(folder, cluster=cluster)
    except OSError as error:
        raise EmbedCacheError(f"{folder} cannot be made: {error.strerror}. Give --engine-option folder=DIR.") from error
    except RuntimeError as error:  # submitit looks for srun
        raise EmbedCacheError(
            "there is no SLURM here: srun was not found. Run this on a login node, or leave out --engine to work on "
            "this machine. The workers of a build can also be started by other means, with `embedcache worker`."
        ) from error
    executor.update_parameters(**settings)
    return executor


@dataclass(slots=True)
class _Jobs:
    """See ``Fleet``; a worker is a job of submitit."""

    executor: Any
    cluster: str
    folder: Path
    asked: float = field(default_factory=time.monotonic)
    since: dict[tuple[str, str], float] = field(default_factory=dict)
    """When something was first seen of a job."""
    left: set[str] = field(default_factory=set)
    """Jobs that the queue does not know any more."""

    def start(self, job: Job, number: int) -> Any:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            return self.executor.submit(_work, job)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            words = " ".join(str(error).split())
            raise EmbedCacheError(
                f"SLURM refused worker {number}: {words}. Mend its --engine-option; the script is in {self.folder}."
            ) from error

    def ended(self, running: Mapping[int, Any]) -> list[tuple[int, WorkerEnd | Lost]]:
        time.sleep(POLL_SECONDS)
        ask = time.monotonic() - self.asked > ASK_SECONDS
        if ask:
            self.asked = time.monotonic()
        found = []
        for place, (i, job) in enumerate(running.items()):
            is_done = job.done(force_check=ask and place == 0)  # one question tells of all jobs
            if job.paths.result_pickle.exists():
                found.append((i, self._result(job)))
            elif lost := self._lost(job, is_done, ask):
                found.append((i, lost))
        return found

    def stop(self, worker: Any) -> None:
        self._age(worker, STOPPED)
        if self.cluster == "slurm":
            worker.cancel(check=False)  # scancel: SIGTERM, and SIGKILL half a minute later
        elif not worker.done():
            os.kill(int(worker.job_id), signal.SIGTERM)  # its own way is SIGINT, and SIGKILL one second later

    def _result(self, job: Any) -> WorkerEnd | Lost:
        if job.exception() is not None:
            return WorkerEnd(None, f"job {job.job_id} ended with a traceback, see {job.paths.stderr}")
        end = job.result()
        assert isinstance(end, WorkerEnd | Lost)
        return Lost(f"job {job.job_id}: {end.how}") if isinstance(end, Lost) else end

    def _lost(self, job: Any, is_done: bool, ask: bool) -> Lost | None:
        how, patience_seconds = self._sign_of_loss(job, is_done, ask)
        if how and self._age(job, how) >= patience_seconds:
            return Lost(f"job {job.job_id}: {how}, see {job.paths.stderr}")
        return None

    def _sign_of_loss(self, job: Any, is_done: bool, ask: bool) -> tuple[str, float]:
        """What speaks for a lost job, if anything, and how long it must."""
        if self.cluster == "local":
            return ("it left no result" if is_done else ""), 0.0
        state = job.state
        if is_done:
            return f"{state} without a result", GRACE_SECONDS
        if (job.job_id, STOPPED) in self.since:
            return STOPPED, STOP_SECONDS
        if state.startswith("PREEMPTED"):
            return "preempted", PREEMPTED_SECONDS
        self.since.pop((job.job_id, "preempted"), None)  # it is in the queue again
        if ask and state == "UNKNOWN" and not _is_queued(job.job_id):  # without accounting nobody knows its end
            self.left.add(job.job_id)
        return ("it left the queue" if job.job_id in self.left else ""), GRACE_SECONDS

    def _age(self, job: Any, seen: str) -> float:
        """Seconds since this was first seen of a job."""
        now = time.monotonic()
        return now - self.since.setdefault((job.job_id, seen), now)


def _is_queued(job_id: str) -> bool:
    """Whether a job waits or runs; True where SLURM does not answer."""
    done = subprocess.run(["squeue", "-h", "-j", job_id, "-o", "%T"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr
    return bool(done.stdout.strip())


def _work(job: Job) -> WorkerEnd | Lost:
    """The worker, in a job."""
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")  # comes some time before the job is killed
    signal.signal(getattr(signal, f"SIG{name}"), lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    return take_part(job)

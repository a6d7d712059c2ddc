"""Which process is meant: an identity that no other process of any machine has, and whether it still runs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["is_gone", "this_process"]


def this_process() -> dict[str, Any]:
    """What tells this process from all others, now and before; nothing where /proc does not say."""
    return _identity(os.getpid())


def is_gone(process: Mapping[str, Any]) -> bool:
    """True if ``this_process`` of a process of this machine said so and it is no more. False if that is not known."""
    here, pid = this_process(), process.get("pid")
    if not here or process.get("machine") != here["machine"] or not isinstance(pid, int):
        return False
    found = _identity(pid)
    if not found:
        return not _may_exist(pid)
    return found["start"] != process.get("start") or found["state"] in ("Z", "X")  # a zombie works no more


def _identity(pid: int) -> dict[str, Any]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return {"machine": f"{boot} {namespace}", "pid": pid, "start": fields[19], "state": fields[0]}
    except (OSError, IndexError):
        return {}


def _may_exist(pid: int) -> bool:
    """A process of another user may be hidden from /proc, and runs all the same."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

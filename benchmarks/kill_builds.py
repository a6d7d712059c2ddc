"""Builds with three workers, killed with SIGKILL at random moments until each is done.

Three workers share a build; again and again one of them, or all, is killed and replaced. Looked at after every kill:

- lost: a commit that had been seen is gone, or a committed sequence has not the bytes of an undisturbed build;
- again: a worker embeds a sequence that had been seen committed before it began;
- too much: a killed worker takes more with it than the two tasks in its hands, one embedded and one written.

And of each finished build: every sequence is there once and has the bytes of the undisturbed build, nothing is in
quarantine, and no more shards were given up than were in flight. The drill fails as well if fewer than half of the
kills hit a worker with work in its hands: then it shows nothing.

    python benchmarks/kill_builds.py [--where local|s3] [--kills 200] [--ttl 3] [--encoder mini-protein]

``--where s3`` starts an S3 server (moto) in a process of its own. With ``--ttl`` a death is known from silence alone,
as of a worker on another machine.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from kill_worker import WORKERS, embedded_by, work
from report import Result, add_json_option, report
from s3_process import s3_process

from embedcache.store import EmbeddingStore
from embedcache.store.files import open_files
from embedcache.store.index import committed_tasks, read_records
from embedcache.store.quarantine import read_quarantine

IN_HANDS = 2
"""Tasks that a killed worker may have begun and not committed."""
LIMIT_SECONDS = 300.0
"""A build that takes longer between two kills hangs."""


@dataclass
class Tally:
    """What the drill counted."""

    kills: int = 0
    in_work: int = 0
    """Kills of workers that held sequences they had begun to embed."""
    builds: int = 0
    lost: int = 0
    again: int = 0
    too_much: int = 0
    wrong: int = 0
    """Sequences of finished builds that are missing, not equal, committed twice or in quarantine."""
    embedded: int = 0
    wanted: int = 0
    orphans: int = 0
    """Shards that no record names."""
    in_flight: int = 0
    """Sequences in the hands of killed workers."""


@dataclass
class Build:
    """One store on its way to its end, with its workers."""

    place: str
    notes: Path
    options: argparse.Namespace
    whole: EmbeddingStore
    """The undisturbed build."""
    tally: Tally
    workers: list[BaseProcess] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    """Sequences that were seen committed."""
    checked: dict[str, int] = field(default_factory=dict)
    """Bytes of the notes of each worker whose keys need not be looked at again."""

    def start(self) -> None:
        """One more worker."""
        worker = start(self.place, self.notes, self.options)
        assert worker.pid is not None
        self.workers.append(worker)
        self.pids.append(worker.pid)

    def is_over(self) -> bool:
        """Whether all workers ended; one that failed ends the drill."""
        failed = [worker.exitcode for worker in self.workers if worker.exitcode]
        assert not failed, f"a worker that was not killed ended with {failed[0]}"
        return all(worker.exitcode == 0 for worker in self.workers)

    def wait_for_work(self, workers: list[BaseProcess]) -> None:
        """Sleep until each of these workers has begun to embed, or one has nothing to do."""
        until = time.monotonic() + 20
        while time.monotonic() < until and all(worker.is_alive() for worker in workers):
            if all((self.notes / str(worker.pid)).exists() for worker in workers):
                return
            time.sleep(0.01)

    def kill(self, victims: list[BaseProcess]) -> int:
        """Kill workers, and look what that did. How many had not ended by themselves."""
        for worker in victims:
            worker.kill()
        for worker in victims:
            worker.join()
        killed = [worker for worker in victims if worker.exitcode == -signal.SIGKILL]
        self.tally.kills += len(killed)
        self.look()
        for worker in killed:
            assert worker.pid is not None
            self.workers.remove(worker)
            self.killed.append(worker.pid)
            self.charge(worker.pid)
        return len(killed)

    def charge(self, pid: int) -> None:
        """What a killed worker took with it."""
        begun = {key for key in embedded_by(self.notes, pid) if key not in self.seen}
        self.tally.in_work += bool(begun)
        self.tally.in_flight += len(begun)
        tokens = sum(self.whole[key].shape[0] for key in begun)
        most = IN_HANDS * self.whole.layout.shard_rows
        self.tally.too_much += tokens > most

    def look(self) -> None:
        """Read what is committed, and compare what is new with the undisturbed build."""
        if not open_files(self.place).exists("zarr.json"):
            return
        store = EmbeddingStore(self.place)
        keys = list(store)
        self.tally.lost += len(self.seen - set(keys))
        for pid in self.pids:  # noted after an earlier look: must not have been committed then
            start = self.checked.get(str(pid), 0)
            self.tally.again += sum(key in self.seen for key in embedded_by(self.notes, pid, start))
        fresh = [key for key in keys if key not in self.seen]
        self.tally.lost += sum(not equal(store, self.whole, key) for key in fresh)
        self.seen.update(fresh)
        for pid in self.pids:
            file = self.notes / str(pid)
            self.checked[str(pid)] = file.stat().st_size if file.exists() else 0

    def finish(self) -> None:
        """Check the finished store from its records up."""
        self.look()
        files, store = open_files(self.place), EmbeddingStore(self.place)
        entries = read_records(files, committed_tasks(files))
        twice = len(entries) - len(np.unique(entries[["high", "low"]]))
        missing = set(self.whole) ^ set(store)
        unequal = sum(not equal(store, self.whole, key) for key in self.whole if key in store)
        self.tally.wrong += twice + len(missing) + unequal + len(read_quarantine(files)) + len(store.damaged())
        claims = files.names("tokens/c" if isinstance(files.place, Path) else "claims/shards")
        orphans = len(claims) - len(np.unique(entries["shard"]))
        self.tally.too_much += orphans > IN_HANDS * len(self.killed)
        self.tally.orphans += orphans
        begun = Counter(key for pid in self.pids for key in embedded_by(self.notes, pid))
        self.tally.embedded += begun.total()
        self.tally.wanted += len(self.whole)
        self.tally.builds += 1


def start(place: str, notes: Path, options: argparse.Namespace) -> BaseProcess:
    """A worker in a process of its own."""
    arguments = place, str(notes), options.sequences, options.ttl, options.pause
    worker = multiprocessing.get_context("forkserver").Process(target=work, args=arguments)
    worker.start()
    return worker


def undisturbed(directory: Path, options: argparse.Namespace) -> EmbeddingStore:
    """A build that nobody kills. After it the server has its imports behind it: later workers start at once."""
    notes, started = directory / "notes", time.monotonic()
    notes.mkdir()
    worker = start(str(directory / "undisturbed"), notes, options)
    worker.join()
    assert worker.exitcode == 0
    store = EmbeddingStore(directory / "undisturbed")
    shards = len(committed_tasks(store.files))
    print(f"undisturbed: {len(store):,} sequences, {shards} tasks, {time.monotonic() - started:.1f} s", flush=True)
    return store


def equal(store: EmbeddingStore, whole: EmbeddingStore, key: bytes) -> bool:
    return np.asarray(store[key]).tobytes() == np.asarray(whole[key]).tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--where", choices=["local", "s3"], default="local")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--encoder", default="tiny-random-protein", help="or mini-protein")
    parser.add_argument("--sequences", type=int, default=2000)
    parser.add_argument("--gap", type=float, default=0.8, help="most seconds between kills")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds that a batch takes longer")
    parser.add_argument("--ttl", type=float, help="know deaths from so many seconds of silence alone")
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    options = parser.parse_args()
    # the server of workers does not look beside this file for what it is to import
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.getenv("PYTHONPATH")])])
    os.environ["DRILL_ENCODER"] = options.encoder
    multiprocessing.get_context("forkserver").set_forkserver_preload(["kill_worker"])
    with tempfile.TemporaryDirectory() as directory, places(options.where, Path(directory)) as root:
        tally = drill(root, Path(directory), options)
    tell(tally, options)


@contextmanager
def places(where: str, directory: Path) -> Iterator[str]:
    """The place below which stores are built."""
    if where == "local":
        yield str(directory)
        return
    with s3_process("drill") as url:
        yield url


def drill(root: str, directory: Path, options: argparse.Namespace) -> Tally:
    rng, tally = random.Random(options.seed), Tally()
    whole = undisturbed(directory, options)
    while tally.kills < options.kills:
        notes = directory / f"notes{tally.builds}"
        notes.mkdir()
        build = Build(f"{root}/killed{tally.builds}", notes, options, whole, tally)
        try:
            for _ in range(WORKERS):
                build.start()
            disturb(build, rng, options)
            build.finish()
        finally:
            for worker in build.workers:
                worker.kill()
        print(
            f"{tally.kills} kills in {tally.builds} builds: {tally.in_work} hit work, lost {tally.lost}, "
            f"again {tally.again}, too much {tally.too_much}, wrong {tally.wrong}",
            flush=True,
        )
    return tally


def disturb(build: Build, rng: random.Random, options: argparse.Namespace) -> None:
    """Kill workers until the build is done; then, and after the last kill, let it end."""
    moved = time.monotonic()
    while not build.is_over():
        alive = [worker for worker in build.workers if worker.is_alive()]
        if alive and rng.random() < 0.9:  # the others may be hit before they have begun
            build.wait_for_work(alive)
        time.sleep(rng.uniform(0, options.gap))
        if build.tally.kills >= options.kills or not alive:
            assert time.monotonic() - moved < LIMIT_SECONDS, "the build does not end"
            continue
        moved = time.monotonic()
        victims = alive if rng.random() < 0.2 else [rng.choice(alive)]
        for _ in range(build.kill(victims)):
            build.start()


def tell(tally: Tally, options: argparse.Namespace) -> None:
    where = options.where + (f", deaths known after {options.ttl} s" if options.ttl else "")
    print(
        f"{where}: {tally.kills} SIGKILLs in {tally.builds} builds of {tally.wanted // tally.builds:,} sequences with "
        f"{WORKERS} workers, {tally.in_work} hit work; {tally.embedded - tally.wanted:,} sequences embedded again, "
        f"{tally.in_flight:,} were in the hands of killed workers; {tally.orphans} orphan shards"
    )
    results = [
        Result(f"{what} ({options.where}, {tally.kills} kills)", found, bar=0, moonshot=0, better="lower")
        for what, found in (
            ("committed sequences lost or torn", tally.lost + tally.wrong),
            ("committed sequences computed again", tally.again),
            ("kills that cost more than what was in flight", tally.too_much),
            (
                "sequences computed twice beyond those in flight",
                max(0, tally.embedded - tally.wanted - tally.in_flight),
            ),
        )
    ]
    report(results, options.json)
    assert tally.in_work >= tally.kills / 2, "most kills hit no work: they show nothing"
    if any(result.measured for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()

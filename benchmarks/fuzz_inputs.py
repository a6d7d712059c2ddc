"""Randomly damaged input, thousands of times: no traceback, no hang, nothing that is accepted in silence.

Each case makes a small valid input from its number, damages it and reads it: text files and what ``prepare`` makes of
them, datasets, and every kind of file of a store. Cases run in processes of their own, with a limit of time and memory.

What may come of damage:
    refused     an error of one printable line that names the file and says what to do; of a store also: ``verify``
                names the sequences, and ``verify --repair`` with a build brings them back
    unchanged   what was read is what was read before the damage
    counted     something else was read, and the counts or the reasons of what was left out tell so
    valid       something else was read, exactly what the damaged file says by rules written apart from the readers
What may not:
    silent      something else was read than the file says, a checksum was passed over, or an error does not help
    traceback   anything but an error of ours, a warning included
    hang        no end within the limit

``valid`` is what no reader can know. FASTA, GTF, GCT and tables have no checksum: a letter or a number that became
another one, a record that is gone whole, are another valid file. (``prepare`` keeps the digest of each input, by which
a copy can be compared with its source.) In them everything else must be found: streams of gzip that are cut or
changed, other encodings and control characters, rows of another length, letters and numbers that are none, IDs that
come twice, sizes that disagree. Datasets and stores have checksums: there a changed byte must always be found, and only
a commit record that is gone whole needs a list of what there should be (``verify --dataset``).

    [TMPDIR=/dev/shm] python benchmarks/fuzz_inputs.py [--count 10000] [--seed 0] [--workers 2]
    python benchmarks/fuzz_inputs.py --case 4711 --keep DIR     # one case again, with its files and its traceback
"""

import argparse
import itertools
import multiprocessing as mp
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from damage import Case, DefectError, Outcome
from damage_cases import CASES
from report import Result as Row
from report import add_json_option, report
from tqdm import tqdm

GOOD = ("refused", "unchanged", "counted", "valid")
BAD = ("silent", "traceback", "hang")
DAMAGE = "damage: "
MEMORY_BYTES = 8 << 30
Cases = Mapping[str, Callable[[Case], Outcome]]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case."""

    number: int
    kind: str
    damage: str
    outcome: str
    text: str = ""
    """Traceback of a bad one."""


@dataclass(slots=True)
class Worker:
    """A process that takes numbers of cases and dies of a bad one, and what it does right now."""

    process: mp.process.BaseProcess
    pipe: Connection
    number: int = -1
    began: float = 0.0

    def give(self, number: int) -> None:
        """Begin a case."""
        self.number, self.began = number, time.monotonic()
        self.pipe.send(number)

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_case(cases: Cases, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """What came of a case, and what was done; if it raises, the error has a note of what was done."""
    case = Case(Random(f"{seed}/{number}"), folder)
    try:
        outcome = list(cases.values())[number % len(cases)](case)
    except BaseException as error:
        error.add_note(DAMAGE + label(case))
        raise
    return outcome, label(case)


def label(case: Case) -> str:
    return case.done[0] if len(case.done) == 1 else "several" if case.done else "none"


def serve(pipe: Connection, cases: Cases, seed: int, scratch: Path) -> None:
    """Run cases until there are no more. A bad one ends the process, as it would end a command."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    scratch.mkdir()
    tempfile.tempdir = str(scratch)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parent prints what matters
    while (number := pipe.recv()) is not None:
        try:
            with tempfile.TemporaryDirectory(prefix="case-") as folder:
                outcome, damage = run_case(cases, seed, number, Path(folder))
        except BaseException as error:
            kind = "silent" if isinstance(error, DefectError) else "traceback"
            damage = next(note for note in error.__notes__ if note.startswith(DAMAGE)).removeprefix(DAMAGE)
            pipe.send((kind, damage, "".join(traceback.format_exception(error, limit=-6))))
            raise
        pipe.send((outcome, damage, ""))


def start(cases: Cases, seed: int, scratch: Path) -> Worker:
    context = mp.get_context("fork")  # quick, and what is imported is there
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, cases, seed, scratch), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def look(worker: Worker, kinds: list[str], limit: float) -> Result | None:
    """What came of the case of a worker; None if it is still at it."""
    number, kind = worker.number, kinds[worker.number % len(kinds)]
    try:
        if worker.pipe.poll():
            outcome, damage, text = worker.pipe.recv()
            return Result(number, kind, damage, outcome, text)
    except (EOFError, ConnectionError):  # killed by a signal, such as that of a fault of memory
        worker.process.join()
        return Result(number, kind, "?", "traceback", f"the process ended with {worker.process.exitcode}")
    if time.monotonic() - worker.began > limit:
        return Result(number, kind, "?", "hang", f"no end within {limit:g} s")
    return None


def fuzz(numbers: Iterable[int], cases: Cases = CASES, *, seed: int, workers: int, limit: float) -> Iterator[Result]:
    """Run cases in several processes; results come in any order.

    Args:
        numbers: Of the cases; with the seed they say all of a case.
        cases: By kind.
        seed: Of all cases.
        workers: How many processes.
        limit: Seconds after which a case hangs.
    """
    kinds, left = list(cases), iter(numbers)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        scratch = (Path(folder) / str(i) for i in itertools.count())
        idle, busy = list[Worker](), list[Worker]()
        try:
            while True:
                while len(busy) < workers and (number := next(left, None)) is not None:
                    busy.append(idle.pop() if idle else start(cases, seed, next(scratch)))
                    busy[-1].give(number)
                if not busy:
                    return
                wait([worker.pipe for worker in busy], timeout=0.2)
                for worker, found in [(worker, look(worker, kinds, limit)) for worker in busy]:
                    if found is not None:
                        busy.remove(worker)
                        (worker.end() if found.outcome in BAD else idle.append(worker))
                        yield found
        finally:
            for worker in (*idle, *busy):
                worker.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=30, help="seconds after which a case hangs")
    parser.add_argument("--kind", action="append", choices=list(CASES), help="this kind only; can be given again")
    parser.add_argument("--case", type=int, help="run the case of this number alone, and show its traceback")
    parser.add_argument("--keep", type=Path, help="new directory for the files of --case")
    add_json_option(parser)
    options = parser.parse_args()
    if options.case is not None:
        again(options)
        return
    kinds = list(CASES)
    numbers = [i for i in range(options.count) if not options.kind or kinds[i % len(kinds)] in options.kind]
    started, results = time.monotonic(), list[Result]()
    found = fuzz(numbers, seed=options.seed, workers=options.workers, limit=options.limit)
    for result in tqdm(found, total=len(numbers), unit=" cases", mininterval=1, disable=None):
        results.append(result)
        if result.outcome in BAD:
            print(f"case {result.number}, {result.kind}, {result.damage}: {result.outcome}\n{result.text}", flush=True)
    print(table("kind", Counter((one.kind, one.outcome) for one in results)))
    print(table("damage", Counter((one.damage.rpartition(": ")[2], one.outcome) for one in results)))
    bad = sorted(one.number for one in results if one.outcome in BAD)
    print(f"{len(results):,} cases of seed {options.seed} in {time.monotonic() - started:.0f} s, {len(bad)} bad", *bad)
    what = f"{len(results):,} damaged inputs: tracebacks, hangs and damage accepted in silence"
    if options.json:
        report([Row(what, len(bad), bar=0, better="lower")], as_json=True)
    sys.exit(1 if bad else 0)


def again(options: argparse.Namespace) -> None:
    """One case once more, in this process; its files stay in ``--keep``."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        place = options.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        print(*run_case(CASES, options.seed, options.case, place.resolve()), sep=": ")


def table(head: str, counts: Counter[tuple[str, str]]) -> str:
    """Cases by the first part of their names and by outcome, as Markdown."""
    names = sorted({name for name, _ in counts})
    rows = [[head, "cases", *GOOD, *BAD], ["---"] * (len(GOOD) + len(BAD) + 2)]
    for name in [*names, "all"]:
        columns = [sum(counts[one, outcome] for one in (names if name == "all" else [name])) for outcome in GOOD + BAD]
        rows.append([name, *(f"{n:,}" for n in (sum(columns), *columns))])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)) + " |" for row in rows
    )


if __name__ == "__main__":
    main()

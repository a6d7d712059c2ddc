"""What a power cut could take from a build: its system calls are traced, and replayed on a disk that forgets.

The disk of the replay keeps what was flushed and nothing else: the bytes of a file after fsync of the file, a name
after fsync of its directory. At the moment each commit record gets its name, all that it speaks of must have been
kept: the bytes of the record, its shards, the description of the store, the channel mean of an int8 store, and the
names of all directories above them. When the lease of the task is removed, which tells other workers that it is done,
the name of the record must have been kept as well. As a control the same is replayed for a build whose fsync does
nothing; there every record must be found wanting. Needs strace.

    python benchmarks/power_cut.py [--sequences 400] [--store-dtype int8]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from report import Result, add_json_option, report

CALLS = (
    "openat,write,writev,pwrite64,fsync,fdatasync,link,linkat,mkdir,mkdirat,rename,renameat2,renameat,unlink,unlinkat"
)
BUILD = """
import os, sys
if sys.argv[3] == "forgetful":
    os.fsync = lambda descriptor: None
sys.path.insert(0, sys.argv[2])
from bench_build import make_records
from embedcache.build import build_cache
from embedcache.encoders.registry import load_encoder
encoder = load_encoder("tiny-random-protein", "protein", store_dtype=sys.argv[5])
build_cache(make_records("protein", int(sys.argv[4])), encoder, sys.argv[1], shard_bytes=1 << 20)
"""
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
LEASE = re.compile("/claims/tasks/([0-9a-f]+)-[0-9]+$")
OPENED = re.compile(r"^\d+<([^>]*)>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=400)
    parser.add_argument("--store-dtype", default="int8")
    add_json_option(parser)
    options = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is not installed. Install it (apt-get install strace) and run this again.")
    results = {}
    for kind in ("real", "forgetful"):
        with tempfile.TemporaryDirectory() as directory:
            store = Path(directory, "store")
            trace = run_traced(store, Path(directory, "trace"), kind, options)
            results[kind] = replay(store, trace)
    (records, lost), (control, forgotten) = results["real"], results["forgetful"]
    print(f"{records} commit records: {len(lost)} speak of what a power cut could have taken")
    print(
        f"control without fsync: {len(forgotten)} of {control}, such as {forgotten[0][:300] if forgotten else 'none'}"
    )
    for line in lost[:10]:
        print(f"  {line}")
    assert records > 3 and len(forgotten) >= control, "the replay cannot tell a safe build from an unsafe one"
    what = "commit records that speak of what a power cut could take"
    report([Result(what, len(lost), bar=0, moonshot=0, better="lower")], options.json)


def run_traced(store: Path, trace: Path, kind: str, options: argparse.Namespace) -> Path:
    here = str(Path(__file__).parent)
    command = ["strace", "-f", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(trace)]
    command += [sys.executable, "-c", BUILD, str(store), here, kind, str(options.sequences), options.store_dtype]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return trace


class ForgetfulDisk:
    """Which files and names of a traced program were flushed."""

    def __init__(self) -> None:
        self.inode: dict[str, str] = {}  # path -> identity of the file
        self.dirty: set[str] = set()  # identities whose bytes were not flushed
        self.names: set[str] = set()  # paths whose names were not flushed

    def add(self, path: str, identity: str | None = None) -> None:
        """A name was made, of a new file or directory or of one that has another name."""
        self.inode[path] = identity or f"{path}#{len(self.inode)}"
        self.names.add(path)

    def write(self, path: str) -> None:
        """Bytes were written."""
        self.dirty.add(self.inode.get(path, path))

    def flush(self, path: str) -> None:
        """A file or a directory was flushed."""
        self.dirty.discard(self.inode.get(path, path))
        self.names = {name for name in self.names if str(PurePosixPath(name).parent) != path}

    def lacks(self, path: str, root: str) -> list[str]:
        """What of a file, of its name and of those above it would be gone."""
        wanting = [f"bytes of {path}"] if self.inode.get(path, path) in self.dirty else []
        places = [PurePosixPath(path), *PurePosixPath(path).parents]
        return wanting + [f"name of {place}" for place in map(str, places) if place in self.names and root in place]


def replay(store: Path, trace: Path) -> tuple[int, list[str]]:
    """Number of records, and what some of them lacked when they got their names or were told to be there."""
    disk, shards, records, lost = ForgetfulDisk(), shards_of(store), 0, list[str]()
    always = [str(store / name) for name in ("zarr.json", "tokens/zarr.json", "mean.npy") if (store / name).exists()]
    for call, arguments in calls(trace):
        quoted = QUOTED.findall(arguments)
        opened = OPENED.match(arguments)
        if call in ("mkdir", "mkdirat") or (call == "openat" and "O_CREAT" in arguments):
            disk.add(quoted[0])
        elif call in ("write", "writev", "pwrite64") and opened:
            disk.write(opened[1])
        elif call in ("fsync", "fdatasync") and opened:
            disk.flush(opened[1])
        elif call in ("link", "linkat"):
            source, target = quoted[0], PurePosixPath(quoted[1])
            if target.parent.name == "commits":
                records += 1
                places = [*always, *(f"{store}/tokens/c/{shard}/0" for shard in shards[target.name])]
                wanting = [one for place in places for one in disk.lacks(place, str(store))]
                wanting += [f"bytes of {source}"] if disk.inode.get(source, source) in disk.dirty else []
                lost += [f"{target.name}: {', '.join(wanting)}"] if wanting else []
            disk.add(str(target), disk.inode.get(source, source))
        elif call.startswith("rename"):
            disk.add(quoted[1], disk.inode.get(quoted[0], quoted[0]))
        elif call.startswith("unlink") and (told := LEASE.search(quoted[0])):
            wanting = disk.lacks(f"{store}/commits/{told[1]}", str(store))
            lost += [f"{told[1]} was told to be done: {', '.join(wanting)}"] if wanting else []
    return records, lost


def shards_of(store: Path) -> dict[str, list[int]]:
    """Shards that each record of the finished store names."""
    from embedcache.store.files import open_files
    from embedcache.store.index import committed_tasks, read_record

    files = open_files(store)
    return {task: sorted(set(read_record(files, task)[0]["shard"].tolist())) for task in committed_tasks(files)}


def calls(trace: Path) -> Iterator[tuple[str, str]]:
    """Name and arguments of each call that succeeded, in the order of their ends."""
    unfinished: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        process, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            unfinished[process] = rest.removesuffix("<unfinished ...>")
            continue
        if rest.startswith("<... "):
            rest = unfinished.pop(process, "") + rest.partition("resumed>")[2]
        found = re.match(r"(\w+)\((.*)\) += (-?\d+)", rest)
        if found and int(found[3]) >= 0:
            yield found[1], found[2]


if __name__ == "__main__":
    main()

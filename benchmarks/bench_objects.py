"""Reading a store in an object store: requests, bytes and waiting, against one request a sequence.

The server (moto, in this process) counts the requests for parts of objects and their bytes, and answers each after
``--latency`` milliseconds, as a distant one would; it has its own work to do besides, so that seconds say little and
requests say all. ``one by one`` asks for a sequence when the one before has come. ``random`` are batches of 64 of a
store of few shards; ``as stored`` goes through the store in the order of its shards, 64 sequences a time, as a pass
over everything does. A sequence is 450 kB here, and a shard 16 MiB.

Expected: 1 request a sequence where none lie beside each other; as stored one for 8 MiB, which is 0.06 a sequence; few
bytes in vain, for gaps are fetched up to 64 KiB; waiting shorter by the 16 requests that run at once. Measured: 0.86
and 0.08 requests a sequence, 1.00 bytes for a byte, 5 and 29 times the rate of one by one (10 and 48 on a calmer
machine): moto, in one thread, is what both then wait for.

    python benchmarks/bench_objects.py [--megabytes 200] [--batches 6] [--latency 30] [--json]
"""

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from random_store import draw_lengths, random_spec, random_tasks, spread
from report import Result, add_json_option, report

from embedcache.store import EmbeddingStore, commit_task, create_store, write_index

BATCH = 64
WIDTH = 320
SHARD_BYTES = 16 << 20
BUCKET = "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--latency", type=float, default=30.0, help="milliseconds before an answer")
    add_json_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    missing = [name for name, module in (("moto", "moto.server"), ("obstore", "obstore")) if not is_installed(module)]
    if missing:
        what = "object store: requests for a sequence, random batches"
        report([Result(what, None, better="lower", note=f"{missing[0]} is not installed")], options.json)
        return
    with counting_server(options.latency / 1e3) as counted:
        root = f"s3://{BUCKET}/store"
        lengths = draw_lengths(options.megabytes * 10**6, WIDTH)
        create_store(root, random_spec(WIDTH), shard_bytes=SHARD_BYTES)
        for task in random_tasks(lengths, WIDTH):
            commit_task(root, task)
        write_index(root)
        report(measure(EmbeddingStore(root), counted, options.batches), options.json)


def measure(store: EmbeddingStore, counted: dict[str, int], n_batches: int) -> list[Result]:
    n = len(store)
    print(f"{n} sequences in {len(store.files.names('claims/shards'))} shards; {BATCH} a batch")
    order = np.random.default_rng(0).permutation(n)
    stored = np.array([position for position, _ in sorted(enumerate(store._places(np.arange(n))), key=lambda x: x[1])])
    results = []
    for name, wanted in (("random batches", order), ("as stored", stored)):
        batches = [wanted[i : i + BATCH] for i in range(0, n - BATCH + 1, BATCH)][:n_batches]
        counted.update(requests=0, bytes=0)
        together = [seconds(lambda batch=batch: store.packed(batch)) for batch in batches]
        asked = sum(int(store.lengths[batch].sum()) for batch in batches) * store.layout.row_bytes
        requests, amplified = counted["requests"] / (BATCH * len(batches)), counted["bytes"] / asked
        single = [seconds(lambda batch=batch: [store.view(i) for i in batch[:8]]) * BATCH / 8 for batch in batches]
        faster = [one / all_ for one, all_ in zip(single, together, strict=True)]
        title = f"object store, {name}"
        results += [
            Result(f"{title}: requests for a sequence", requests, better="lower"),
            Result(f"{title}: bytes fetched for a byte asked for", amplified, better="lower"),
            Result(f"{title}: rate over sequences one by one", statistics.median(faster), note=spread(faster)),
        ]
    return results


def seconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def is_installed(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def counting_server(latency: float) -> Iterator[dict[str, int]]:
    """A local S3 server with an empty bucket; its address is in the environment from here on."""
    import logging

    import boto3
    from moto.moto_server import threaded_moto_server as module

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    counted, lock = {"requests": 0, "bytes": 0}, threading.Lock()

    class Counting(module.DomainDispatcherApplication):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            asked = environ.get("HTTP_RANGE")
            if environ["REQUEST_METHOD"] == "GET" and asked:
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
                with lock:
                    counted["requests"] += 1
                    counted["bytes"] += last - first + 1
                time.sleep(latency)
            return super().__call__(environ, start_response)

    module.DomainDispatcherApplication = Counting
    server = module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
    }
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    try:
        yield counted
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())

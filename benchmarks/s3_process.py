"""An S3 server (moto) in a process of its own, for drills that kill processes.

Moto looks whether an object exists and then writes it, and lists objects that another thread removes; with a lock
around each request "create if absent" is as atomic as S3 promises, and a listing does not fail.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SERVER = """
import logging, sys, threading
from moto.moto_server import threaded_moto_server as module
logging.getLogger("werkzeug").setLevel(logging.ERROR)
one_at_a_time = threading.Lock()
class Atomic(module.DomainDispatcherApplication):
    def __call__(self, environ, start_response):
        with one_at_a_time:
            return super().__call__(environ, start_response)
module.DomainDispatcherApplication = Atomic
server = module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@contextmanager
def s3_process(bucket: str) -> Iterator[str]:
    """The address of an empty bucket; its credentials are in the environment of this process from here on."""
    import boto3

    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "drill",
            "AWS_SECRET_ACCESS_KEY": "drill-only-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "AWS_ALLOW_HTTP": "true",
        }
        boto3.client("s3").create_bucket(Bucket=bucket)
        yield f"s3://{bucket}"
    finally:
        server.communicate()  # its standard input ends, and with it the server

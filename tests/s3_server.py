"""An S3 server on this machine, with a bucket ``archive``."""

import contextlib
import urllib.request
from collections.abc import Iterator

import fsspec

from worker.local.broker import free_port


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[fsspec.AbstractFileSystem, dict[str, str]]]:
    """Start one. Yields a file system to write with, and the environment by which it is found."""
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        # Servers of one process share their buckets.
        urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")).close()
        files = fsspec.filesystem(
            "s3",
            key="key",
            secret="secret",
            endpoint_url=address,
            skip_instance_cache=True,
        )
        files.mkdir("archive")
        yield files, environment
    finally:
        server.stop()

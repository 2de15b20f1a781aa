"""The configuration of the broker of `dermq up`."""

import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from worker.local.broker import LocalBroker, find_broker_binary, free_port


@pytest.mark.parametrize("name", ['quote"s', "back\\slash", "new\nline", "ümlaut", "100% #1?"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    """A double quote in the home folder's name stopped `dermq up`."""
    folder = tmp_path / name
    folder.mkdir()
    broker = LocalBroker(binary=find_broker_binary(), port=free_port(), password="secret")
    process = subprocess.Popen([broker.binary, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert process.stdin is not None
        process.stdin.write(broker.configuration(folder).encode())
        process.stdin.close()
        with Redis(port=broker.port, password=broker.password, decode_responses=True) as client:
            for _ in range(100):
                with suppress(RedisError):
                    client.ping()
                    break
                time.sleep(0.1)
            assert client.config_get("dir") == {"dir": str(folder)}
    finally:
        process.kill()
        process.wait()

"""Hints that come more than once: repeated by whoever sends them, and taken for lost while a worker is at the chunk."""

import base64
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.processes import FaultSystem, Part
from tests.acceptance.faults.reconcile import check_counts, chunks

TIMES = 10


def _received(*workers: Part) -> Counter[str]:
    """How often each message came, by the number that its sender gave it."""
    return Counter(name for worker in workers for name in re.findall(r"score_chunk\[([\w-]+)\] received", worker.log()))


@pytest.mark.fault(13)
@pytest.mark.databases("sqlite", "postgresql")
def test_each_hint_is_delivered_ten_times(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards the claim: of several processes that are told of a chunk at once, one gets it, and nobody afterwards."""
    system.environment["FAULT_HINT_TIMES"] = str(TIMES)
    workers = [system.worker("first"), system.worker("second")]
    system.sweeper()
    job = system.submit(undisturbed.folder)
    found = chunks(system, job)
    until(lambda: len(_received(*workers)) >= TIMES * len(found), "every repetition has come")
    until(lambda: system.broker.waiting() == 0, "no message is left")
    check_counts(system, job, undisturbed.expected)
    assert {chunk.attempt for chunk in chunks(system, job)} == {1}
    assert sum(worker.log().count("chunk claimed") for worker in workers) == len(found)


@pytest.mark.fault(14)
def test_a_chunk_takes_longer_than_the_visibility_timeout(
    system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards the claim against Redis' idea of a lost message: it is delivered again while its chunk is being scored.

    This tests the broker's redelivery. Fault 13 tests the claim that refuses it, on both databases.
    """
    slow = {"FAULT_VISIBILITY_SECONDS": "2", "FAULT_SECONDS_PER_IMAGE": "0.25"}
    workers = [system.worker("first", **slow), system.worker("second", **slow)]
    folder = undisturbed.copy(tmp_path / "archive", images=64)
    job = system.submit(folder)
    until(lambda: max(_received(*workers).values(), default=0) > 1, "a message comes again")
    assert any(chunk.owner for chunk in chunks(system, job)), "its chunk was done before: the test proves nothing"
    check_counts(system, job, undisturbed.expected, archive=folder)
    assert {chunk.attempt for chunk in chunks(system, job)} == {1}


def _odd_messages() -> list[bytes]:
    """What somebody else may write into the queue, beside a proper hint: each stopped a worker once, or might."""
    identity = "7b2e251d-c1d0-40a5-92af-228924bba241"
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

    def message(content: Any, headers: Any = None, **changed: Any) -> dict[str, Any]:
        known = {"lang": "py", "task": "dermq.score_chunk", "id": identity, "timelimit": [None, None], "retries": 0}
        return {
            "body": base64.b64encode(json.dumps(content).encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {**known, **headers} if isinstance(headers, dict) else known if headers is None else headers,
            "properties": {
                "correlation_id": identity,
                "delivery_info": {"exchange": "", "routing_key": "bulk"},
                "body_encoding": "base64",
                "delivery_tag": identity,
            },
            **changed,
        }

    arguments = [[1], {}, embedded]
    odd = [
        message("a text"),
        message(arguments, {"timelimit": "soon"}),
        message(arguments, {"timelimit": ["a", {}]}),
        message(arguments, {"id": 5}),
        message(arguments, {"id": {"a": 1}}),
        message(arguments, {"task": ["dermq.score_chunk"]}),
        message(arguments, {"eta": "tomorrow", "expires": "never"}),
        message(arguments, headers=[]),
        message(arguments, headers="text"),
        message([["x" * 10_000], {}, embedded]),
        message([[1], {}, {"chain": [{"task": "dermq.score_chunk", "args": [1]}]}]),
        message(arguments, **{"content-type": "application/x-python-serialize"}),
        message(arguments, body="no base64 %%%"),
        message(arguments, properties={}),
        message(arguments, properties=None),
        # No body, and a header that asks to unpack it: Celery's own error message failed on it.
        message(arguments, body=None, headers={"compression": "application/x-gzip"}),
        # The client of Redis refuses such a name for it.
        message(arguments, properties={**message(arguments)["properties"], "delivery_tag": None}),
        {},
        [],
        "text",
        5,
    ]
    return [b"no JSON", b"\xff\xfe\x00", b"", *(json.dumps(each).encode() for each in odd)]


@pytest.mark.fault(23)
def test_messages_that_are_no_hints_stop_no_worker(
    system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards the consumer: Celery's ended on such a message, which came again and ended the next one, for ever."""
    worker = system.worker("worker")
    until(lambda: "ready" in worker.log(), "the worker is ready")
    main_process = worker.process.pid
    odd = _odd_messages()
    for queue in ("bulk", "urgent"):
        for each in odd:
            system.broker.client.lpush(f"dermq:{queue}", each)
    until(lambda: system.broker.waiting() == 0, "every message is taken")
    # Not a queue: all workers hear it at once.
    system.broker.client.publish("dermq:/0.celery.pidbox", "5")
    system.broker.client.publish("dermq:/0.celery.pidbox", '{"a": 1}')
    job = system.submit(undisturbed.folder)
    check_counts(system, job, undisturbed.expected)
    assert worker.process.poll() is None, "the worker's main process ended"
    assert worker.process.pid == main_process
    dropped = int(system.broker.client.hget("dermq:dropped-messages", "count") or 0)
    assert dropped >= 2 * len(odd)
    assert system.broker.client.hlen("dermq:unacked") == 0, "one would come again"
    assert worker.log().count("a message that is no hint was dropped") == 1, "once a minute"
    assert f"workers dropped {dropped} that were no hints" in system.dermq("check", check=False).stdout

"""Workers tell hints from other messages, and no message ends a worker."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.queue.app import SCORE_CHUNK
from worker.queue.consumer import is_hint

EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
HEADERS = {
    "task": SCORE_CHUNK,
    "id": "7b2e251d-c1d0-40a5-92af-228924bba241",
    "eta": None,
    "expires": None,
    "group": None,
    "retries": 0,
    "timelimit": [None, None],
}
JSON = "application/json"


def body(content: Any) -> bytes:
    return json.dumps(content).encode()


def test_what_dermq_sends_is_a_hint() -> None:
    """Made by Celery itself, as the sweeper does."""
    from celery import Celery

    app = Celery("dermq")
    message = app.amqp.as_task_v2(HEADERS["id"], SCORE_CHUNK, args=(42,), kwargs={})
    assert is_hint(message.headers, json.dumps(message.body), JSON)
    message = app.amqp.as_task_v2(HEADERS["id"], SCORE_CHUNK, args=(42, 7), kwargs={})
    assert is_hint(message.headers, json.dumps(message.body), JSON)


@pytest.mark.parametrize(
    "content",
    [
        "a text",
        None,
        17,
        {},
        [],
        [[42]],
        [[42], {}],
        [[42], {"chunk_id": 1}, EMBEDDED],
        [[], {}, EMBEDDED],
        [[1, 2, 3], {}, EMBEDDED],
        [["42"], {}, EMBEDDED],
        [[True], {}, EMBEDDED],
        [[4.2], {}, EMBEDDED],
        [[0], {}, EMBEDDED],
        [[-1], {}, EMBEDDED],
        [[2**63], {}, EMBEDDED],
        [[42], {}, None],
        [[42], {}, {**EMBEDDED, "chain": [{"task": "other"}]}],
        [[42], {}, {**EMBEDDED, "callbacks": ["x"]}],
    ],
)
def test_another_body_is_none(content: Any) -> None:
    assert not is_hint(HEADERS, body(content), JSON)


@pytest.mark.parametrize(
    "change",
    [
        {"task": "dermq.other"},
        {"task": ["dermq.score_chunk"]},
        {"id": 5},
        {"id": None},
        {"id": "x" * 1000},
        {"id": "\x1b[2J"},
        {"timelimit": "soon"},
        {"timelimit": ["a", {}]},
        {"timelimit": [1]},
        {"timelimit": [0.0001, 0.0001]},
        {"eta": "tomorrow"},
        {"expires": -1},
        {"group": "g"},
        {"retries": "many"},
    ],
)
def test_other_headers_are_none(change: dict[str, Any]) -> None:
    assert not is_hint({**HEADERS, **change}, body([[42], {}, EMBEDDED]), JSON)


def test_another_type_or_broken_text_is_none() -> None:
    good = body([[42], {}, EMBEDDED])
    assert is_hint(HEADERS, good, JSON)
    assert not is_hint(HEADERS, good, "application/x-python-serialize")
    for broken in (b"", b"\xff\xfe", b"[" * 100_000, None):
        assert not is_hint(HEADERS, broken, JSON)
    for headers in (None, [], "text", {}):
        assert not is_hint(headers, good, JSON)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=8))
def test_it_never_raises(content: Any) -> None:
    assert is_hint(content, body(content), content) in (True, False)
    assert is_hint({"task": content, "id": content, "timelimit": content}, body(content), JSON) is False

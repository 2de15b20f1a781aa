"""Hints: messages that wake a worker. Losing all of them loses nothing, because the sweeper sends others."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from worker.errors import BrokerError
from worker.queue.app import SCORE_CHUNK, queue_name
from worker.url_redaction import without_password

#: Key that a sweeper sets at each sweep and that fades without it. Not truth, only a sign of life.
_LAST_SWEEP = "sweeper"
#: What an absent broker raises, or an address that is none.
BROKER_FAULTS = (KombuError, RedisError, OSError, KeyError, ValueError)
#: An absent broker is noticed at once: whoever asks has something better to do than wait, and asks again later.
_ONE_TRY: dict[str, Any] = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.0, "timeout": 5.0}


def send_hints(app: Celery, chunk_ids: Sequence[int], *, urgent: bool) -> None:
    """Put one message per chunk into a queue. Call it after the chunks are committed.

    Args:
        app: the Celery application.
        chunk_ids: rows of `db.models.Chunk`.
        urgent: which queue.

    Raises:
        BrokerError: the broker cannot be reached or refuses; some messages may have been sent.
    """
    try:
        # A connection of its own: what a pooled one believes to be declared may have been flushed since.
        with app.connection_for_write() as connection:
            connection.ensure_connection(**_ONE_TRY)
            producer = app.amqp.Producer(connection)
            for chunk_id in chunk_ids:
                app.send_task(
                    SCORE_CHUNK, args=(chunk_id,), queue=queue_name(urgent=urgent), producer=producer, retry=False
                )
    except BROKER_FAULTS as error:
        raise BrokerError(f"the broker takes no messages: {_said(error, app)}") from error


def queue_length(app: Celery, *, urgent: bool) -> int:
    """Messages that wait in a queue.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    length: int = _ask(app, lambda client: client.llen(queue_name(urgent=urgent)))
    return length


def note_sweep(app: Celery, *, good_for: float) -> None:
    """Leave a sign that the sweeper lives, for `dermq check`; it fades by itself.

    Args:
        app: the Celery application.
        good_for: seconds after which no further sign means that no sweeper runs.

    Raises:
        BrokerError: the broker cannot be reached.
    """

    def sign(client: Any) -> None:
        # A hash, because Kombu puts our prefix before the keys of these commands, but not of GET and EXPIRE.
        client.hset(_LAST_SWEEP, "host", socket.gethostname())
        client.pexpire(_LAST_SWEEP, round(good_for * 1000))

    _ask(app, sign)


def last_sweeper(app: Celery) -> str | None:
    """Host of a sweeper that swept lately, or None.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    host: bytes | None = _ask(app, lambda client: client.hget(_LAST_SWEEP, "host"))
    return host.decode() if host is not None else None


def _ask(app: Celery, question: Callable[[Any], Any]) -> Any:
    """What the broker's own client answers."""
    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(**_ONE_TRY)
            return question(connection.default_channel.client)
    except BROKER_FAULTS as error:
        raise BrokerError(f"the broker does not answer: {_said(error, app)}") from error


def _said(error: Exception, app: Celery) -> str:
    if isinstance(error, (KeyError, ValueError)):
        # Kombu's own words repeat a part of the address, which may be a part of a password.
        return "its address is not one of Redis. Expected: redis://:password@host:port/0."
    return without_password(str(error), str(app.conf.broker_url))

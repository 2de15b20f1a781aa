"""Hints: messages that wake a worker. Losing them all loses nothing, because the sweeper sends others."""

import socket
from collections.abc import Callable, Mapping
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError, ResponseError

from worker.errors import BrokerError
from worker.queue.app import BULK, KEY_PREFIX, SCORE_CHUNK, URGENT, queue_name
from worker.terminal import printable
from worker.url_redaction import without_password

#: Key that a sweeper sets at each sweep and that expires without one. A sign of life, not a record.
_LAST_SWEEP = "sweeper"
#: Key that `dermq check` writes.
_CHECKED = "checked"
#: Key of the number of messages that workers dropped because they were no hints. A sign too.
DROPPED = "dropped-messages"
#: What an unreachable broker raises. `worker.settings` checks its URL before, so a KeyError or ValueError is a bug.
BROKER_FAULTS = (KombuError, RedisError, OSError)
#: Give up an unreachable broker at once: callers have other work to do and ask again later.
_ONE_ATTEMPT: dict[str, Any] = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.0, "timeout": 5.0}


def send_hints(app: Celery, chunks: Mapping[int, int], *, urgent: bool) -> None:
    """Send one message per chunk. Call it after the chunks are committed.

    Args:
        app: the Celery application.
        chunks: the job of each chunk, by the ids of both.
        urgent: which queue.

    Raises:
        BrokerError: the broker cannot be reached or refuses. Some messages may have been sent.
    """
    try:
        # A new connection: a pooled one may rely on queues that were flushed since.
        with app.connection_for_write() as connection:
            connection.ensure_connection(**_ONE_ATTEMPT)
            producer = app.amqp.Producer(connection)
            for chunk_id, job_id in chunks.items():
                app.send_task(
                    SCORE_CHUNK,
                    args=(chunk_id, job_id),
                    argsrepr=f"chunk {chunk_id} of job {job_id}",
                    queue=queue_name(urgent=urgent),
                    producer=producer,
                    retry=False,
                )
    except BROKER_FAULTS as error:
        raise BrokerError(f"The broker accepts no messages: {_describe(error, app)}.") from error


def queue_length(app: Celery, *, urgent: bool) -> int:
    """Number of messages in a queue.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    length: int = ask(app, lambda client: client.llen(queue_name(urgent=urgent)))
    return length


def check_writes(app: Celery) -> None:
    """Check that the broker accepts writes and that its queues are queues.

    Raises:
        BrokerError: it cannot be reached, refuses writes, or another program has written into it.
    """
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(**_ONE_ATTEMPT)
            client = connection.default_channel.client
            # A hash, as in `record_sweep`.
            client.hset(_CHECKED, "host", socket.gethostname())
            for urgent in (True, False):
                client.llen(queue_name(urgent=urgent))
    except ResponseError as error:
        text = _describe(error, app)
        if text.startswith("WRONGTYPE"):
            raise BrokerError(
                f"Another program has written into the queues of dermq ({text}). Delete the keys {KEY_PREFIX}{URGENT} "
                f"and {KEY_PREFIX}{BULK}; the sweeper sends the hints again."
            ) from error
        raise BrokerError(f"The broker refuses writes: {text}.") from error
    except BROKER_FAULTS as error:
        raise BrokerError(f"The broker does not answer: {_describe(error, app)}.") from error


def record_sweep(app: Celery, *, good_for: float) -> None:
    """Leave a sign of life of the sweeper, for `dermq check`. It expires by itself.

    Args:
        app: the Celery application.
        good_for: seconds until it expires.

    Raises:
        BrokerError: the broker cannot be reached.
    """

    def record(client: Any) -> None:
        # A hash: Kombu adds our prefix to the keys of these commands, but not to those of GET and EXPIRE.
        client.hset(_LAST_SWEEP, "host", socket.gethostname())
        client.pexpire(_LAST_SWEEP, round(good_for * 1000))

    ask(app, record)


def last_sweeper(app: Celery) -> str | None:
    """Host of a sweeper that swept lately, or None.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    host: bytes | None = ask(app, lambda client: client.hget(_LAST_SWEEP, "host"))
    return host.decode(errors="replace") if host is not None else None


def dropped_messages(app: Celery) -> int:
    """How many messages workers dropped because they were no hints; see `worker.queue.consumer`.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    count: bytes | None = ask(app, lambda client: client.hget(DROPPED, "count"))
    return int(count) if count is not None and count.isdigit() else 0


def ask(app: Celery, question: Callable[[Any], Any]) -> Any:
    """Call a function with the broker's own client.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(**_ONE_ATTEMPT)
            return question(connection.default_channel.client)
    except BROKER_FAULTS as error:
        raise BrokerError(f"The broker does not answer: {_describe(error, app)}.") from error


def _describe(error: Exception, app: Celery) -> str:
    """The error without passwords and control characters. A server's answer may hold anything."""
    return printable(without_password(str(error), str(app.conf.broker_url))).rstrip(".")

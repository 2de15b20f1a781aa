"""Hints: messages that wake a worker. Losing all of them loses nothing, because the sweeper sends others."""

from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from worker.app import queue_name
from worker.errors import BrokerError
from worker.tasks import SCORE_CHUNK

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
    except (KombuError, RedisError, OSError) as error:
        raise BrokerError(f"the broker takes no messages: {error}") from error


def queue_length(app: Celery, *, urgent: bool) -> int:
    """Messages that wait in a queue.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    try:
        with app.connection_for_read() as connection:
            connection.ensure_connection(**_ONE_TRY)
            length: int = connection.default_channel.client.llen(queue_name(urgent=urgent))
            return length
    except (KombuError, RedisError, OSError) as error:
        raise BrokerError(f"the broker does not answer: {error}") from error

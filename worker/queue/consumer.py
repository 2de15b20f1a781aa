"""A consumer that no message can stop: whatever is not one of our hints is dropped, counted, and logged once a minute.

Celery's consumer ends its process on a message that it does not expect, such as a JSON text as body. Redis then
delivers the message again, and it ends the next one, for ever. Anyone with access to Redis could stop every worker.
"""

import json
import re
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery.worker.consumer import Consumer
from kombu.transport.redis import Channel
from redis.exceptions import DataError

from worker.log_throttle import LogThrottle
from worker.logging import get_logger
from worker.queue.app import KEY_PREFIX, SCORE_CHUNK
from worker.queue.hints import DROPPED

log = get_logger(__name__)

#: A task's id as Celery makes it.
_ID = re.compile(r"[0-9a-f-]{1,64}", re.ASCII)
#: Greatest number of a chunk: a 64-bit row id.
_MOST = 2**63 - 1

#: What reading something else than a message raises. Redis' own client refuses a number that is none.
_NO_MESSAGE = (LookupError, TypeError, ValueError, AttributeError, DataError)

_throttle = LogThrottle()


def is_hint(headers: Any, body: Any, content_type: Any) -> bool:
    """Whether a message is one that dermq sends: the only task, with the numbers of a chunk and its job.

    Args:
        headers: of the message.
        body: as bytes or text.
        content_type: of the body.
    """
    if not isinstance(headers, dict) or headers.get("task") != SCORE_CHUNK or content_type != "application/json":
        return False
    if not isinstance(headers.get("id"), str) or not _ID.fullmatch(headers["id"]):
        return False
    if headers.get("timelimit") not in (None, [None, None]):
        return False
    # A hint is for now, and is not sent again by its receiver.
    if any(headers.get(name) is not None for name in ("eta", "expires", "group")) or headers.get("retries", 0) != 0:
        return False
    try:
        content = json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return False
    if not (isinstance(content, list) and len(content) == 3 and content[1] == {}):
        return False
    arguments, embedded = content[0], content[2]
    if not isinstance(embedded, dict) or any(embedded.values()):
        return False
    return (
        isinstance(arguments, list)
        # A queue may still hold hints of an earlier version, with the chunk alone.
        and len(arguments) in (1, 2)
        and all(type(each) is int and 0 < each <= _MOST for each in arguments)
    )


class _Guard:
    """Of a channel of Redis: drops what is no message at all, whichever way it comes."""

    def _brpop_read(self, **options: Any) -> Any:
        before = set(self.qos._delivered)  # type: ignore[attr-defined] # Kombu has no types
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except _NO_MESSAGE as error:
            # Kombu counts a KeyError among the errors of a connection, and would connect again. The message is out of
            # its queue already; if it was recorded as delivered, it would come again.
            for tag in set(self.qos._delivered) - before:  # type: ignore[attr-defined]
                self.qos.reject(tag)  # type: ignore[attr-defined]
            note_dropped(self, type(error).__name__)
            raise Empty from None

    def _receive_one(self, client: Any) -> Any:
        # Broadcasts, such as remote control.
        try:
            return super()._receive_one(client)  # type: ignore[misc]
        except _NO_MESSAGE as error:
            note_dropped(self, type(error).__name__)
            return None


def guarded(channel: type) -> type:
    """The class of a channel with the guard; Sentinel has a class of its own, and other brokers have none of ours."""
    if not issubclass(channel, Channel) or issubclass(channel, _Guard):
        return channel
    return type("HintChannel", (_Guard, channel), {})


class HintConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Celery's consumer, which hands on hints only."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, with a guarded channel."""
        conn.transport.Channel = guarded(conn.transport.Channel)
        return super().ensure_connected(conn)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """The function that receives messages."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> Any:
            if not is_hint(message.headers, message.body, message.content_type):
                return self._drop(message, "it is no hint")
            try:
                return handle(message)
            except KeyError as error:
                return self._drop(message, type(error).__name__)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:
                return self._drop(message, type(error).__name__)

        return on_message

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Called for a body that cannot be read. Celery's own logs it, and fails on one that is none."""
        self._drop(message, type(exc).__name__)

    def _drop(self, message: Any, why: str) -> None:
        note_dropped(message.channel, why)
        message.reject_log_error(log, self.connection_errors)


def note_dropped(channel: Any, why: str) -> None:
    """Count a dropped message, and log it if none was logged lately. Its content may be anything and is not logged.

    Args:
        channel: it came through.
        why: for the log.
    """
    if _throttle.allow():
        log.error("a message that is no hint was dropped; who else writes to this Redis?", why=why)
    try:
        with channel.conn_or_acquire() as client:
            client.execute_command("HINCRBY", f"{KEY_PREFIX}{DROPPED}", "count", 1)
    except Exception as error:
        # The count is for people only.
        log.debug("the dropped message was not counted", error=type(error).__name__)

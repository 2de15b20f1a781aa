"""Counters of what workers and sweepers did, kept in the broker for `worker.monitor.web.metrics`.

Signs, not records: SQL holds the outcomes. A flushed Redis sets the counters to zero, which Prometheus expects.
"""

from collections.abc import Mapping

from celery import Celery

from worker.log_throttle import LogThrottle
from worker.logging import get_logger
from worker.queue.hints import BROKER_FAULTS, ask

log = get_logger(__name__)

#: Key of the hash. Kombu puts our prefix before it.
_COUNTERS = "counters"

_throttle = LogThrottle()


def add(app: Celery, counts: Mapping[str, float]) -> None:
    """Add to counters, by their names. Does nothing when the broker does not answer.

    Args:
        app: the Celery application.
        counts: what to add.
    """
    if not counts:
        return
    try:
        with app.pool.acquire(block=True, timeout=1) as connection:
            pipe = connection.default_channel.client.pipeline(transaction=False)
            for name, number in counts.items():
                pipe.hincrbyfloat(_COUNTERS, name, number)
            pipe.execute()
    except BROKER_FAULTS as error:
        if _throttle.allow():
            log.warning("the counters for Prometheus were not written", error=type(error).__name__)


def read(app: Celery) -> dict[str, float]:
    """All counters.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    found: dict[bytes, bytes] = ask(app, lambda client: client.hgetall(_COUNTERS))
    values = {}
    for name, value in found.items():
        try:
            values[name.decode()] = float(value)
        except ValueError:
            # Another program wrote it.
            continue
    return values

"""The Celery application. SQL is the truth; a message is a hint that carries the id of a chunk and nothing else."""

from celery import Celery
from kombu.entity import Exchange, Queue

from worker.settings import Settings, hard_time_limit

#: The queues, in the order in which a worker reads them.
URGENT, BULK = "urgent", "bulk"
#: Name of the only task.
SCORE_CHUNK = "dermq.score_chunk"
#: Name of the remote-control command that asks a worker for its bundle.
TELL_BUNDLE = "dermq_bundle"
#: Prefix of every key in Redis, so that several systems can share one server.
KEY_PREFIX = "dermq:"
#: Seconds until a connection to a silent broker counts as lost.
_SOCKET_TIMEOUT = 10.0


def queue_name(*, urgent: bool) -> str:
    """The queue for a job's hints."""
    return URGENT if urgent else BULK


def make_app(settings: Settings) -> Celery:
    """Make the application that submitters, the sweeper, Flower and workers share. It has no tasks registered.

    Workers use `worker.scoring.tasks.make_worker_app`.

    Args:
        settings: give the broker's URL and the time limits.
    """
    app = Celery("dermq", broker=settings.resolved_broker_url(), set_as_current=False)
    hard_limit = round(hard_time_limit(settings.chunk_time_limit))
    app.conf.update(
        # Only JSON is decoded, whoever can write to Redis. Pickle could run code.
        accept_content=["json"],
        task_serializer="json",
        # Outcomes are in SQL. A result backend would be a second truth.
        task_ignore_result=True,
        # The default exchange routes by queue name alone. Any other keeps its bindings in Redis, and after a FLUSHALL
        # a running sender would find none.
        task_queues=[Queue(name, Exchange(""), routing_key=name) for name in (URGENT, BULK)],
        task_default_queue=BULK,
        task_default_exchange="",
        task_default_routing_key=BULK,
        # Redis delivers a message again when its worker dies. The lease in SQL decides whether that matters.
        task_acks_late=True,
        # SQL counts attempts. A message put back would be delivered for ever.
        task_reject_on_worker_lost=False,
        task_soft_time_limit=settings.chunk_time_limit,
        task_time_limit=hard_limit,
        # One message at a time: a hint that waits in a busy worker is a chunk that an idle one could claim.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # Named, and not imported: only workers load it.
        worker_consumer="worker.queue.consumer:HintConsumer",
        # Redis may be away for hours: never give up.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        # Loading a model in a new process may take longer than the default of 4 s.
        worker_proc_alive_timeout=120,
        worker_send_task_events=True,
        # dermq sets up its own logging before the worker starts.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_transport_options={
            "global_keyprefix": KEY_PREFIX,
            # Urgent first, bulk when there is none.
            "queue_order_strategy": "priority",
            # Above the hard limit, or a chunk under way would be delivered to a second worker.
            "visibility_timeout": hard_limit + 60,
            # Unacknowledged messages are looked for every 10 s.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": _SOCKET_TIMEOUT,
            "socket_connect_timeout": _SOCKET_TIMEOUT / 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    return app

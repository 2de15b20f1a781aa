"""The Celery application: SQL is the truth, a message is a hint that carries a chunk's number and nothing else."""

from celery import Celery
from kombu.entity import Exchange, Queue

from worker.settings import Settings, hard_time_limit

#: The queues in the order in which a worker looks into them.
URGENT, BULK = "urgent", "bulk"
#: Before every key in Redis, so that several systems can share one server.
KEY_PREFIX = "dermq:"
#: Seconds that the broker may take to answer before a connection counts as lost.
_SOCKET_TIMEOUT = 10.0


def queue_name(*, urgent: bool) -> str:
    """Queue of a job's hints."""
    return URGENT if urgent else BULK


def make_app(settings: Settings) -> Celery:
    """Make the application that workers, submitters, the sweeper and Flower share.

    Args:
        settings: for the broker's address and the time limits.

    Returns:
        The application with its tasks registered.
    """
    app = Celery("dermq", broker=settings.resolved_broker_url(), set_as_current=False)
    hard_limit = round(hard_time_limit(settings.chunk_time_limit))
    app.conf.update(
        # Nothing but JSON is unpickled, whoever can write to Redis.
        accept_content=["json"],
        task_serializer="json",
        # The outcome stands in SQL; a result backend would be a second truth.
        task_ignore_result=True,
        # The default exchange routes by queue name alone. Any other keeps its bindings in Redis, and after a FLUSHALL
        # a long-lived sender would find none.
        task_queues=[Queue(name, Exchange(""), routing_key=name) for name in (URGENT, BULK)],
        task_default_queue=BULK,
        task_default_exchange="",
        task_default_routing_key=BULK,
        # A message is taken back when its worker dies. The lease in SQL decides whether that matters.
        task_acks_late=True,
        # SQL counts attempts; a message put back for ever would not.
        task_reject_on_worker_lost=False,
        task_soft_time_limit=settings.chunk_time_limit,
        task_time_limit=hard_limit,
        # One message at a time: a hint that waits in a busy worker is a chunk that an idle one could have.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # The night shift's Redis comes back at any time: never give up.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        # Loading a model in a fresh child may take longer than the default of 4 s.
        worker_proc_alive_timeout=120,
        worker_send_task_events=True,
        # Our own logging is set up before the worker starts.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_transport_options={
            "global_keyprefix": KEY_PREFIX,
            # Urgent first, bulk when there is none.
            "queue_order_strategy": "priority",
            # Above the hard limit, or a chunk still at work would be handed to a second worker.
            "visibility_timeout": hard_limit + 60,
            # How often lost messages are looked for: every 10 s.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": _SOCKET_TIMEOUT,
            "socket_connect_timeout": _SOCKET_TIMEOUT / 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    # Here, because the task needs the application that it is registered with.
    from worker.scoring.tasks import register_tasks

    register_tasks(app, settings)
    return app


#: Name of the one task.
SCORE_CHUNK = "dermq.score_chunk"
#: Name of the question to a worker which bundle it would score with now.
TELL_BUNDLE = "dermq_bundle"

"""Logging: readable on a terminal, JSON otherwise. Log lines hold ids only: no file names, no patient data."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from worker.errors import BundleError, EngineError
from worker.log_throttle import LogThrottle
from worker.settings import Settings
from worker.terminal import printable

#: Loggers that report every attempt to reach a broker that is away, refuses writes or answers nonsense.
_BROKER_LOGGERS = (
    "celery.worker.consumer.consumer",
    "celery.worker.consumer.connection",
    "flower.events",
    "flower.inspector",
    "kombu.connection",
    "kombu.mixins",
    "kombu.transport.redis",
    "py.warnings",
)
#: Celery's logger that reports every task that raised, with the traceback.
_TASK_LOGGER = "celery.app.trace"


def _once_a_minute(repeats: Callable[[logging.LogRecord], bool]) -> Callable[[logging.LogRecord], bool]:
    """A filter that lets a repeated line through once a minute, for a worker and all its children."""
    throttle = LogThrottle()
    return lambda record: not repeats(record) or throttle.allow()


class _EachOnceAMinute(logging.Filter):
    """Lets each message through once a minute. Messages are alike when only the values in them differ."""

    def __init__(self) -> None:
        super().__init__()
        self._throttles: dict[str, LogThrottle] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        # The first line: the others are a traceback or an explanation.
        text = str(record.msg).strip().partition("\n")[0][:200]
        return self._throttles.setdefault(text, LogThrottle()).allow()


def _cannot_score(record: logging.LogRecord) -> bool:
    """Whether the worker lacks the job's bundle or engine: every hint of the job fails the same way."""
    return record.exc_info is not None and isinstance(record.exc_info[1], (BundleError, EngineError))


def _escape(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace control characters in texts, some of which come from outside: a bundle's name, an answer of Redis."""
    return {
        name: printable(value, lines=name == "exception") if isinstance(value, str) else value
        for name, value in event.items()
    }


def configure_logging(settings: Settings) -> None:
    """Send dermq's log lines and those of its libraries to standard error, in one form."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    # Before the escaping: the text of an exception may come from outside too.
    last: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _escape,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*last, renderer]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Alembic logs three lines a migration, which the operator does not need.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for name in _BROKER_LOGGERS:
        logging.getLogger(name).addFilter(_EachOnceAMinute())
    logging.getLogger(_TASK_LOGGER).addFilter(_once_a_minute(_cannot_score))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes an event and ids: ``log.info("chunk closed", chunk=7)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger

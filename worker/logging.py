"""Logging: readable on a terminal, JSON otherwise. Ids only: no file names, no patient data."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from worker.errors import BundleError, EngineError
from worker.log_throttle import Complaint
from worker.settings import Settings

#: Where Celery says at each attempt that the broker is away.
_BROKER_LOGGER = "celery.worker.consumer.consumer"


#: Where Celery says of each task that it raised, with the traceback.
_TASK_LOGGER = "celery.app.trace"


def _once_a_minute(repeats: Callable[[logging.LogRecord], bool]) -> Callable[[logging.LogRecord], bool]:
    """A filter that lets a line which repeats itself pass once a minute, for a worker and all its children."""
    complaint = Complaint()
    return lambda record: not repeats(record) or complaint.due()


def _broker_is_away(record: logging.LogRecord) -> bool:
    return str(record.msg).startswith("consumer: Cannot connect")


def _cannot_score(record: logging.LogRecord) -> bool:
    """Whether it tells of a worker without the job's bundle or engine: every hint of the job ends so."""
    return record.exc_info is not None and isinstance(record.exc_info[1], (BundleError, EngineError))


def configure_logging(settings: Settings) -> None:
    """Send our log lines and the libraries' to standard error in one form."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    last: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not console:
        last.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*last, renderer]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Each migration in three lines is not for the operator.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger(_BROKER_LOGGER).addFilter(_once_a_minute(_broker_is_away))
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

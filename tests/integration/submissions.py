"""Submissions of synthetic archives, and what they leave in database and queue."""

from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import Engine, func, select

from db.models import Chunk, Image
from db.session import read
from worker.intake.submission import Submission, SubmissionResult


def messages_of(app: Celery, queue: str) -> list[Any]:
    """Take every message out of a queue."""
    messages = []
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        app.amqp.queues[queue](channel).declare()
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            messages.append(message)
    return messages


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not looked at by intake")
    return root


def submission(source: Path, **changes: Any) -> Submission:
    given = {"source": source, "root": None, "policy": "youden", "urgent": False, "chunk_size": 2}
    return Submission(**{**given, **changes})


def paths(database: Engine, intake: SubmissionResult) -> list[str]:
    query = select(Image.path).where(Image.job_id == intake.job_id).order_by(Image.id)
    return read(database, lambda c: list(c.scalars(query)))


def chunks(database: Engine) -> list[Any]:
    return read(database, lambda c: list(c.execute(select(Chunk).order_by(Chunk.id))))


def rows_in(database: Engine, *tables: type) -> list[int | None]:
    return read(database, lambda c: [c.scalar(select(func.count()).select_from(table)) for table in tables])

"""A command whose commit took effect, but whose reply was lost, is not refused when it runs again."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from db.audit import entries_of
from db.deletion import begin_deletion
from db.job_control import RetryResult, cancel_job, pause_job, resume_job, retry_failed
from db.models import Image
from db.session import read, transact
from db.status import FailureCode, ImageStatus
from tests.integration.databases import add_job, change

Work = Callable[[Connection], object]


@pytest.fixture
def lossy(database: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lose the reply to the next commit: it takes effect, and an error is raised."""
    monkeypatch.setattr("db.session.BACKOFF_SECONDS", 0.001)

    def arm() -> None:
        @event.listens_for(database, "commit", once=True)
        def lose(connection: Connection) -> None:
            raw = connection.connection
            if database.dialect.name == "sqlite":
                raw.cursor().execute("COMMIT")
            else:
                raw.commit()
            raise OperationalError("COMMIT", None, Exception("server closed the connection unexpectedly"))

    return arm


def test_the_reply_to_each_command_may_be_lost(database: Engine, lossy: Callable[[], None]) -> None:
    made = add_job(database, 2)
    job = made.job_id

    def run(work: Callable[[Connection, str], object]) -> object:
        request = uuid4().hex
        lossy()
        return transact(database, lambda connection: work(connection, request))

    assert run(lambda c, request: pause_job(c, job, actor="me", request=request)) is True
    assert run(lambda c, request: resume_job(c, job, actor="me", request=request)) is True
    change(database, Image, made.image_ids[0], status=ImageStatus.FAILED, failure_code=FailureCode.MISSING)
    retried = run(lambda c, request: retry_failed(c, job, codes=None, actor="me", request=request))
    assert retried == RetryResult(images=1, skipped=0)
    assert run(lambda c, request: cancel_job(c, job, actor="me", request=request)) is True
    assert run(lambda c, request: begin_deletion(c, job, actor="me", request=request)) is True
    actions = [str(entry.action) for entry in read(database, lambda c: list(entries_of(c, job)))]
    assert actions == ["submitted", "paused", "resumed", "retried", "cancelled", "deleted"], "each was done once"


def test_a_command_that_was_not_done_is_still_refused(database: Engine) -> None:
    job = add_job(database, 1).job_id
    assert transact(database, lambda c: cancel_job(c, job, actor="me", request="one"))
    assert not transact(database, lambda c: cancel_job(c, job, actor="me", request="two"))

"""News of jobs: what is sent, that it is sent again, and that it names no path."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Engine

from db.claims import claim_chunk, close_chunk
from db.job_control import retry_failed
from db.jobs import finish_job_if_done
from db.models import Chunk
from db.outcomes import Failed, Outcome, Scored, write_outcomes
from db.session import transact
from db.status import FailureCode, TriageFlag
from db.types import db_now
from tests.integration.databases import MadeJob, add_job, change
from worker.monitor import notify
from worker.monitor.notify import Notifier
from worker.settings import Settings


class Receiver:
    """A web server that keeps what it is told, and answers with a status."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.status = 204
        #: Number of a job whose news is not taken.
        self.refused: int | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                news = json.loads(body)
                status = 422 if news["job"] == outer.refused else outer.status
                if status == 204:
                    outer.told.append(news)
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?secret=1"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


def notifier(database: Engine, **settings: Any) -> Notifier:
    return Notifier(Settings(**settings), database)


def finish(database: Engine, made: MadeJob, *, scored: bool) -> None:
    claim = transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "ward:1:x", 60))
    assert claim is not None
    outcomes: list[Outcome] = [
        Scored(
            image_id=image,
            image_sha256="0" * 64,
            raw_probability=0.9,
            probability=0.9,
            flag=TriageFlag.HIGH_RISK,
            malignant_probability=None,
            class_probabilities=None,
            reused_from=None,
        )
        if scored
        else Failed(image_id=image, code=FailureCode.MISSING, sentence="gone")
        for image in made.image_ids
    ]
    transact(database, lambda c: write_outcomes(c, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine=""))
    assert transact(database, lambda c: close_chunk(c, claim))
    assert transact(database, lambda c: finish_job_if_done(c, made.job_id))


def test_the_end_of_a_job_is_told_once(database: Engine, receiver: Receiver) -> None:
    good, bad = (add_job(database, 2, root="/archive/Miller") for _ in range(2))
    told = notifier(database, notify_url=receiver.url)
    told.deliver()
    assert receiver.told == []
    finish(database, good, scored=True)
    finish(database, bad, scored=False)
    told.deliver()
    told.deliver()
    notifier(database, notify_url=receiver.url).deliver()
    first, second = receiver.told
    assert (first["event"], first["job"], first["scored"], first["high_risk"]) == ("finished", good.job_id, 2, 2)
    assert (second["event"], second["job"], second["failed"]) == ("failed", bad.job_id, 2)
    assert first["id"] != second["id"]
    assert "Miller" not in json.dumps(receiver.told)


@pytest.mark.parametrize("status", [500, 404, 302])
def test_what_is_not_taken_is_told_again_with_the_same_id(
    sqlite_database: Engine,
    receiver: Receiver,
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notify, "_RETRY", 0.0)
    finish(sqlite_database, add_job(sqlite_database, 1), scored=True)
    told = notifier(sqlite_database, notify_url=receiver.url)
    receiver.status = status
    told.deliver()
    assert receiver.told == []
    assert "secret" not in capsys.readouterr().out
    receiver.status = 204
    told.deliver()
    (news,) = receiver.told
    assert news["event"] == "finished"


def test_one_refusal_holds_up_no_other_news(sqlite_database: Engine, receiver: Receiver) -> None:
    for _ in range(3):
        finish(sqlite_database, add_job(sqlite_database, 1), scored=True)
    receiver.refused = 2
    notifier(sqlite_database, notify_url=receiver.url).deliver()
    assert [news["job"] for news in receiver.told] == [1, 3]


def test_an_address_is_told_once_when_the_command_fails(
    sqlite_database: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_RETRY", 0.0)
    finish(sqlite_database, add_job(sqlite_database, 1), scored=True)
    told = notifier(sqlite_database, notify_url=receiver.url, notify_command="false")
    for _ in range(3):
        told.deliver()
    assert len(receiver.told) == 1


def test_the_second_end_of_a_job_is_news_again(database: Engine, receiver: Receiver) -> None:
    made = add_job(database, 1)
    finish(database, made, scored=False)
    told = notifier(database, notify_url=receiver.url)
    told.deliver()
    assert transact(database, lambda c: retry_failed(c, made.job_id, codes=None, actor="test", request="1"))
    finish(database, made, scored=True)
    told.deliver()
    assert [news["event"] for news in receiver.told] == ["failed", "finished"]


def test_a_receiver_that_is_away_does_no_harm(sqlite_database: Engine, receiver: Receiver) -> None:
    finish(sqlite_database, add_job(sqlite_database, 1), scored=True)
    notifier(sqlite_database, notify_url="http://127.0.0.1:1/").deliver()
    notifier(sqlite_database, notify_url=receiver.url).deliver()
    assert len(receiver.told) == 1


def test_a_stall_is_told_when_it_lasts_and_that_it_is_over(
    database: Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.monitor.stalls.configured_bundle", lambda settings: None)
    monkeypatch.setattr("worker.monitor.stalls.running_bundle", lambda settings: None)
    made = add_job(database, 1, root="/archive/Miller")
    told = notifier(database, notify_url=receiver.url)
    told.deliver()
    assert receiver.told == [], "a worker may be about to take it"
    monkeypatch.setattr(notify, "_SETTLE", 0.0)
    told.deliver()
    told.deliver()
    (news,) = receiver.told
    assert (news["event"], news["text"]) == (
        "stalled",
        f"Job {made.job_id} does not progress: no worker. Run `dermq status {made.job_id}`.",
    )
    assert transact(database, lambda c: claim_chunk(c, made.chunk_ids[0], "ward:1:x", 60))
    told.deliver()
    assert receiver.told[-1]["event"] == "resumed"
    # Another cause is news again.
    change(database, Chunk, made.chunk_ids[0], lease_expires_at=db_now(-60))
    told.deliver()
    assert receiver.told[-1]["text"].startswith(f"Job {made.job_id} does not progress: lease expired.")
    assert len(receiver.told) == 3


def test_a_command_gets_the_news(sqlite_database: Engine, tmp_path: Path) -> None:
    finish(sqlite_database, add_job(sqlite_database, 1), scored=True)
    code = f"import pathlib, sys; pathlib.Path({str(tmp_path / 'told')!r}).write_text(sys.stdin.read())"
    notifier(sqlite_database, notify_command=f'"{sys.executable}" -c "{code}"').deliver()
    assert json.loads((tmp_path / "told").read_text())["event"] == "finished"


def test_a_command_that_fails_is_run_again(sqlite_database: Engine, tmp_path: Path) -> None:
    finish(sqlite_database, add_job(sqlite_database, 1), scored=True)
    for _ in range(2):
        notifier(sqlite_database, notify_command=f"sh -c 'echo x >> {tmp_path / 'runs'}; exit 3'").deliver()
    assert (tmp_path / "runs").read_text() == "x\nx\n"


@pytest.mark.parametrize("url", ["ftp://host/", "host/hook", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        Settings(notify_url=url)  # type: ignore[arg-type]

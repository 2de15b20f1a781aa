"""Totals of chunks and groups: whatever happens to a job, they are what counting its rows gives."""

import random
from collections import Counter
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import Engine, event, func, select, text, update

from db import totals as totals_module
from db.claims import Claim, LeaseLostError, claim_chunk, close_chunk, release_chunk, renew_lease, waiting_images
from db.deletion import begin_deletion, delete_rows, jobs_to_prune
from db.job_control import pause_job, resume_job, retry_failed
from db.jobs import finish_job_if_done, view_jobs
from db.models import Chunk, ChunkGroup, Image, Job, Prediction
from db.outcomes import Failed, Outcome, Scored, Ungradable, stored_inferences, write_outcomes
from db.progress import JobCounts, count_images, count_jobs
from db.reconciliation import find_inconsistencies
from db.schema import _config, migrate
from db.session import read, transact
from db.status import ChunkStatus, FailureCode, JobStatus, TriageFlag, UngradableReason
from db.totals import HISTOGRAM_BINS, histogram_bin, score_histogram, settle_if_done
from db.types import db_now
from db.worklist import _scored, outcomes_by_image, worklist_page
from tests.integration.databases import MadeJob, add_job, at_once, change, expire_lease, row


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several groups in a job of a few chunks."""
    monkeypatch.setattr(totals_module, "GROUP_CHUNKS", 3)


def outcome_of(image_id: int, choose: random.Random) -> Outcome:
    kind = choose.random()
    if kind < 0.2:
        return Failed(image_id=image_id, code=choose.choice(list(FailureCode)), sentence="it failed")
    if kind < 0.3:
        return Ungradable(image_id=image_id, reason=choose.choice(list(UngradableReason)), sentence="it is so")
    probability = choose.choice([0.0, 0.1, 0.39999, 0.4, 0.45, 0.5, 0.77, 1.0])
    return Scored(
        image_id=image_id,
        image_sha256="a" * 64,
        raw_probability=probability,
        probability=probability,
        flag=TriageFlag.HIGH_RISK
        if probability >= 0.5
        else TriageFlag.BORDERLINE
        if probability >= 0.4
        else TriageFlag.LOWER_PRIORITY,
        reused_from="fake 0" if choose.random() < 0.3 else None,
    )


def counted(database: Engine, job_id: int) -> JobCounts:
    """The counts, by counting every row."""
    rows = read(database, lambda c: list(outcomes_by_image(c, job_id)))
    return JobCounts(
        by_status=dict(Counter(each.status for each in rows)),
        by_flag=dict(Counter(each.flag for each in rows if each.flag is not None)),
        by_failure=dict(Counter(each.failure_code for each in rows if each.failure_code is not None)),
        by_ungradable_reason=dict(
            Counter(each.ungradable_reason for each in rows if each.ungradable_reason is not None)
        ),
        reused=sum(bool(each.reused) for each in rows),
    )


def check(database: Engine, job_id: int) -> None:
    told = read(database, lambda c: count_images(c, job_id))
    listed = read(database, lambda c: count_jobs(c, [job_id]))[job_id]
    true = counted(database, job_id)
    for name in ("by_status", "by_flag", "by_failure", "by_ungradable_reason", "reused"):
        assert getattr(told, name) == getattr(true, name), name
    for name in ("by_status", "by_flag", "reused", "last_completed_at"):
        assert getattr(listed, name) == getattr(told, name), name
    histogram = [0] * HISTOGRAM_BINS
    for each in read(database, lambda c: list(outcomes_by_image(c, job_id))):
        if each.probability is not None:
            histogram[histogram_bin(each.probability)] += 1
    assert read(database, lambda c: score_histogram(c, job_id)) == histogram
    assert read(database, lambda c: find_inconsistencies(c, job_id)) == []


class _Life:
    """A job to which anything may happen."""

    def __init__(self, database: Engine, made: MadeJob, seed: int) -> None:
        self.database, self.made, self.choose = database, made, random.Random(seed)
        self.claims: list[Claim] = []

    def step(self) -> None:
        """One of the things that happen to a job."""
        steps = (self.claim, self.claim, self.write, self.write, self.write, self.close, self.close)
        self.choose.choice((*steps, self.release, self.die, self.retry, self.pause))()

    def claim(self) -> None:
        chunk = self.choose.choice(self.made.chunk_ids)
        claim = transact(self.database, lambda c: claim_chunk(c, chunk, uuid4().hex, 60))
        self.claims += [] if claim is None else [claim]

    def write(self) -> None:
        if not self.claims:
            return
        claim = self.choose.choice(self.claims)
        waiting = read(self.database, lambda c: waiting_images(c, claim.chunk_id))
        some = self.choose.sample(waiting, min(len(waiting), 2))
        outcomes = [outcome_of(image.id, self.choose) for image in some]

        def work(connection) -> None:
            renew_lease(connection, claim, 60)
            write_outcomes(
                connection, outcomes, job_id=self.made.job_id, bundle_id=self.made.bundle_id, engine="fake 1"
            )

        try:
            transact(self.database, work)
        except LeaseLostError:
            self.claims.remove(claim)

    def close(self) -> None:
        for claim in self.claims[:]:
            if transact(self.database, lambda c, claim=claim: close_chunk(c, claim)):  # type: ignore[misc]
                self.claims.remove(claim)
                if self.choose.random() < 0.8:
                    # Else the worker died right after it closed the chunk.
                    transact(self.database, lambda c, claim=claim: settle_if_done(c, claim.group_id))  # type: ignore[misc]
        transact(self.database, lambda c: finish_job_if_done(c, self.made.job_id))

    def release(self) -> None:
        if self.claims:
            claim = self.claims.pop()
            transact(self.database, lambda c: release_chunk(c, claim, count_attempt=True))

    def die(self) -> None:
        if self.claims:
            expire_lease(self.database, self.claims.pop().chunk_id)

    def retry(self) -> None:
        codes = self.choose.choice([None, [FailureCode.MISSING, FailureCode.TRUNCATED]])
        job = self.made.job_id
        transact(self.database, lambda c: retry_failed(c, job, codes=codes, actor="me", request=uuid4().hex))

    def pause(self) -> None:
        for act in (pause_job, resume_job):
            transact(self.database, lambda c, act=act: act(c, self.made.job_id, actor="me", request=uuid4().hex))  # type: ignore[misc]

    def end(self) -> None:
        """Let every image have its outcome."""
        for chunk in self.made.chunk_ids:
            if row(self.database, Chunk, chunk).status == ChunkStatus.LEASED:
                expire_lease(self.database, chunk)
        self.claims = []
        for _ in range(200):
            if row(self.database, Job, self.made.job_id).status == JobStatus.FINISHED:
                return
            for step in (self.claim, self.write, self.close):
                step()
        raise AssertionError("the job did not finish")


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_totals_are_what_counting_gives(database: Engine, seed: int) -> None:
    add_job(database, 2, 2)
    life = _Life(database, add_job(database, 3, 2, 3, 1, 2, 3, 2), seed)
    for number in range(40):
        life.step()
        if number % 8 == 7:
            check(database, life.made.job_id)
    life.end()
    check(database, life.made.job_id)
    groups = read(database, lambda c: list(c.execute(select(ChunkGroup.settled).where(ChunkGroup.job_id == 2))))
    assert [tuple(group) for group in groups] == [(True,)] * 3, "a finished job is read from its groups"


def test_workers_that_close_the_last_chunks_at_once_settle_the_group(database: Engine) -> None:
    for _ in range(6):
        made = add_job(database, 1, 1)
        claims = [
            transact(database, lambda c, chunk=chunk: claim_chunk(c, chunk, uuid4().hex, 60))  # type: ignore[misc]
            for chunk in made.chunk_ids
        ]

        def close(claim: Claim, image: int, made: MadeJob = made) -> None:
            outcomes = [outcome_of(image, random.Random(image))]

            def work(connection) -> None:
                write_outcomes(connection, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine="fake")

            transact(database, work)
            assert transact(database, lambda c: close_chunk(c, claim))
            transact(database, lambda c: settle_if_done(c, claim.group_id))

        pairs = zip(claims, made.image_ids, strict=True)
        at_once(*(lambda claim=claim, image=image: close(claim, image) for claim, image in pairs))  # type: ignore[misc]
        assert row(database, ChunkGroup, claims[0].group_id).settled  # type: ignore[union-attr]
        check(database, made.job_id)


def statements(database: Engine, work) -> list[str]:
    """The SQL that a function runs."""
    seen: list[str] = []

    def note(_conn, _cursor, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(database, "before_cursor_execute", note)
    try:
        read(database, work)
    finally:
        event.remove(database, "before_cursor_execute", note)
    return [statement for statement in seen if statement.lstrip().startswith("SELECT")]


def test_a_list_of_jobs_costs_as_many_queries_as_one_job(database: Engine) -> None:
    jobs = [add_job(database, 2, 2).job_id for _ in range(12)]
    one = statements(database, lambda c: count_jobs(c, jobs[:1]))
    assert len(statements(database, lambda c: count_jobs(c, jobs))) == len(one) <= 6


def test_a_look_at_a_job_without_workers_reads_no_image(database: Engine) -> None:
    job = add_job(database, 4, 4).job_id
    for work in (lambda c: count_images(c, job), lambda c: count_jobs(c, [job])):
        assert not [statement for statement in statements(database, work) if "FROM image" in statement]


def test_a_retry_at_the_moment_when_a_group_is_settled(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL alone lets both run at once: whoever settles must see the chunk that is reopened."""
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    made = add_job(database, 2, 2)
    claims = [
        transact(database, lambda c, chunk=chunk: claim_chunk(c, chunk, uuid4().hex, 60))  # type: ignore[misc]
        for chunk in made.chunk_ids
    ]
    failed = [Failed(image_id=image, code=FailureCode.MISSING, sentence="gone") for image in made.image_ids]
    transact(database, lambda c: write_outcomes(c, failed, job_id=made.job_id, bundle_id=made.bundle_id, engine="fake"))
    for claim in claims:
        assert claim is not None
        assert transact(database, lambda c, claim=claim: close_chunk(c, claim))  # type: ignore[misc]
    group = claims[0].group_id  # type: ignore[union-attr]
    # The worker has looked and found no open chunk. Before it has the lock, a retry reopens both.
    asked: list[str] = []

    def retry_in_between(_conn, _cursor, statement: str, *_: object) -> None:
        if "EXISTS" in statement and not asked:
            asked.append(statement)
            transact(database, lambda c: retry_failed(c, made.job_id, codes=None, actor="me", request=uuid4().hex))
            chunk = made.chunk_ids[0]
            assert transact(database, lambda c: claim_chunk(c, chunk, uuid4().hex, 60)) is not None

    with database.connect() as connection:
        event.listen(connection, "after_cursor_execute", retry_in_between)
        with connection.begin():
            settle_if_done(connection, group)
    assert asked
    assert not row(database, ChunkGroup, group).settled
    check(database, made.job_id)


def test_pages_of_the_worklist_follow_each_other_without_a_gap(database: Engine) -> None:
    made = add_job(database, 30)
    other = add_job(database, 5)
    life = _Life(database, made, seed=3)
    life.end()
    _Life(database, other, seed=4).end()
    whole = read(database, lambda c: worklist_page(c, made.job_id, 100))
    pages, last = [], None
    while page := read(database, lambda c, last=last: worklist_page(c, made.job_id, 4, after=last)):  # type: ignore[misc]
        pages += page
        last = page[-1]
    assert pages == whole
    assert len({each.image_id for each in whole}) == counted(database, made.job_id).by_status["scored"]  # type: ignore[index]
    assert [each.probability for each in whole] == sorted((each.probability for each in whole), reverse=True)


def plan(database: Engine, query) -> str:
    """How the database runs a query."""
    if database.dialect.name == "postgresql":
        transact(database, lambda c: c.exec_driver_sql("ANALYZE"))
    word = "EXPLAIN QUERY PLAN" if database.dialect.name == "sqlite" else "EXPLAIN"
    written = query.compile(database, compile_kwargs={"literal_binds": True})
    return "\n".join(read(database, lambda c: [str(line) for line in c.execute(text(f"{word} {written}"))]))


def test_a_page_of_the_worklist_sorts_nothing(database: Engine) -> None:
    made = add_job(database, *[100] * 40)
    _fill_with_scores(database, made)
    shown = plan(database, _scored(made.job_id).limit(5))
    assert "ix_prediction_job_id_probability_image_id" in shown, shown
    assert "TEMP B-TREE" not in shown, shown
    assert "Sort" not in shown, shown


def _fill_with_scores(database: Engine, made: MadeJob) -> None:
    outcomes = [
        Scored(
            image_id=image,
            image_sha256="a" * 64,
            raw_probability=index / 5_000,
            probability=index / 5_000,
            flag=TriageFlag.HIGH_RISK,
        )
        for index, image in enumerate(made.image_ids)
    ]
    transact(
        database,
        lambda c: write_outcomes(c, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine="fake"),
    )


def test_of_many_copies_one_row_is_read(database: Engine) -> None:
    """20,000 copies of one file took 33 ms a batch, and each batch made it more."""
    made = add_job(database, 50)
    _fill_with_scores(database, made)
    found = read(database, lambda c: stored_inferences(c, made.bundle_id, ["a" * 64, "b" * 64]))
    assert list(found) == ["a" * 64]
    assert found["a" * 64].raw_probability == 49 / 5_000, "the newest"


def test_a_deletion_that_was_killed_half_way_is_finished_by_the_same_command(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.deletion._CHUNKS_PER_TRANSACTION", 2)
    made, other = add_job(database, *[2] * 7), add_job(database, 3)
    _Life(database, made, seed=1).end()
    assert transact(database, lambda c: begin_deletion(c, made.job_id, actor="me", request="one"))

    class _Killed(BaseException):
        pass

    def die(images: int) -> None:
        if images >= 8:
            raise _Killed

    with pytest.raises(_Killed):
        delete_rows(database, made.job_id, die)
    (view,) = read(database, lambda c: view_jobs(c, job_id=made.job_id))
    assert view.status is JobStatus.DELETING
    left = read(database, lambda c: c.scalar(select(func.count()).where(Image.job_id == made.job_id)))
    assert left == 6
    assert made.job_id in read(database, lambda c: jobs_to_prune(c, 365))
    assert transact(database, lambda c: begin_deletion(c, made.job_id, actor="me", request="two"))
    delete_rows(database, made.job_id)
    for table in (Job, Chunk, ChunkGroup, Image, Prediction):
        column = Job.id if table is Job else table.job_id  # type: ignore[attr-defined]
        assert read(database, lambda c, column=column: c.scalar(select(func.count()).where(column == made.job_id))) == 0  # type: ignore[misc]
    check(database, other.job_id)


def test_prune_finds_what_ended_long_ago_and_nothing_that_runs(database: Engine) -> None:
    old, young, running = (add_job(database, 2) for _ in range(3))
    for made in (old, young):
        _Life(database, made, seed=made.job_id).end()
    for made in (old, running):
        change(database, Job, made.job_id, finished_at=db_now(-40 * 86_400))
    assert read(database, lambda c: jobs_to_prune(c, 30)) == [old.job_id]
    assert read(database, lambda c: jobs_to_prune(c, 60)) == []


def test_a_job_of_an_older_schema_gets_its_totals(database: Engine) -> None:
    life = _Life(database, add_job(database, 3, 2, 3, 1, 2, 3, 2), seed=2)
    for _ in range(30):
        life.step()
    finished = _Life(database, add_job(database, 3, 2, 2, 2), seed=5)
    finished.end()
    before = [read(database, lambda c, job=job: count_images(c, job)) for job in (1, 2)]  # type: ignore[misc]
    with database.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0007")
        connection.commit()
    migrate(database)
    for job, counts in zip((1, 2), before, strict=True):
        assert read(database, lambda c, job=job: count_images(c, job)) == counts  # type: ignore[misc]
        check(database, job)
    transact(database, lambda c: c.execute(update(Chunk).values(hinted_at=None)))
    life.end()
    check(database, 1)

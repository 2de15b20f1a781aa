"""How images ended: every one once, and what is exported is what was written."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console
from sqlalchemy import Connection, Engine, func, select

from db.claims import claim_chunk
from db.models import Image, Prediction
from db.outcomes import REASON_LENGTH, Failed, Outcome, Scored, Ungradable, write_outcomes
from db.progress import JobCounts, count_images, count_jobs
from db.session import read, transact
from db.status import FailureCode, ImageStatus, TriageFlag, UngradableReason
from db.worklist import OutcomeRow, outcomes_by_image, unscored_page, worklist_page
from tests.integration.databases import MadeJob, add_job, row
from worker.monitor.job_status import find_job
from worker.monitor.summary import print_summary
from worker.output.csv import write_csv


def scored(image_id: int, probability: float = 0.1, flag: TriageFlag = TriageFlag.LOWER_PRIORITY) -> Scored:
    return Scored(
        image_id=image_id,
        image_sha256="a" * 64,
        raw_probability=probability / 2,
        probability=probability,
        flag=flag,
    )


def write(database: Engine, made: MadeJob, outcomes: Sequence[Outcome], engine: str = "fake 1") -> None:
    """As a worker does that has not closed its chunks yet."""

    def work(connection: Connection) -> None:
        for chunk in made.chunk_ids:
            claim_chunk(connection, chunk, "test", 60)
        write_outcomes(connection, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine=engine)

    transact(database, work)


def exported(database: Engine, made: MadeJob) -> list[OutcomeRow]:
    return read(database, lambda c: list(outcomes_by_image(c, made.job_id)))


def counts(database: Engine, made: MadeJob) -> JobCounts:
    return read(database, lambda c: count_images(c, made.job_id))


def mixed(made: MadeJob) -> list[Outcome]:
    ids = made.image_ids
    return [
        scored(ids[0], 0.9, TriageFlag.HIGH_RISK),
        Failed(image_id=ids[1], code=FailureCode.TRUNCATED, sentence="ends too early"),
        scored(ids[2], 0.45, TriageFlag.BORDERLINE),
        Ungradable(image_id=ids[3], reason=UngradableReason.BLURRED, sentence="blurred"),
        Failed(image_id=ids[4], code=FailureCode.MISSING, sentence="gone"),
        scored(ids[5], 0.2),
    ]


def test_each_kind_of_outcome_is_written(database: Engine) -> None:
    made = add_job(database, 7)
    write(database, made, mixed(made))
    rows = exported(database, made)
    assert [(r.status, r.flag, r.failure_code, r.ungradable_reason, r.reason) for r in rows] == [
        (ImageStatus.SCORED, TriageFlag.HIGH_RISK, None, None, None),
        (ImageStatus.FAILED, None, FailureCode.TRUNCATED, None, "ends too early"),
        (ImageStatus.SCORED, TriageFlag.BORDERLINE, None, None, None),
        (ImageStatus.UNGRADABLE, None, None, UngradableReason.BLURRED, "blurred"),
        (ImageStatus.FAILED, None, FailureCode.MISSING, None, "gone"),
        (ImageStatus.SCORED, TriageFlag.LOWER_PRIORITY, None, None, None),
        (ImageStatus.WAITING, None, None, None, None),
    ]
    assert [r.completed_at is None for r in rows] == [False] * 6 + [True]
    first = rows[0]
    assert (first.probability, first.raw_probability, first.image_sha256) == (0.9, 0.45, "a" * 64)
    assert (first.engine, first.policy, first.threshold) == ("fake 1", "youden", 0.5)
    assert (first.bundle_name, first.bundle_version, first.bundle_sha256) == ("synthetic", "1", "b" * 64)


def test_counts_add_up(database: Engine) -> None:
    add_job(database, 3)  # another job's images are not counted
    made = add_job(database, 4, 4)
    write(database, made, mixed(made))
    found = counts(database, made)
    assert found.by_status == {
        ImageStatus.SCORED: 3,
        ImageStatus.FAILED: 2,
        ImageStatus.UNGRADABLE: 1,
        ImageStatus.WAITING: 2,
    }
    assert found.by_flag == {TriageFlag.HIGH_RISK: 1, TriageFlag.BORDERLINE: 1, TriageFlag.LOWER_PRIORITY: 1}
    assert found.by_failure == {FailureCode.TRUNCATED: 1, FailureCode.MISSING: 1}
    assert (found.submitted, found.completed) == (8, 6)
    assert sum(found.by_flag.values()) == found.by_status[ImageStatus.SCORED]
    assert sum(found.by_failure.values()) == found.by_status[ImageStatus.FAILED]
    assert read(database, lambda c: count_jobs(c, [made.job_id]))[made.job_id].by_status == found.by_status


def test_the_summary_says_how_many_scores_were_reused(database: Engine) -> None:
    """Or 200 images a second look like the speed of the network."""
    made = add_job(database, 3)
    new, *old = (scored(image) for image in made.image_ids)
    write(database, made, [new, *(replace(one, reused_from="fake 0") for one in old)])
    assert counts(database, made).reused == 2
    console = Console(file=io.StringIO(), width=120)
    print_summary(database, find_job(database, made.job_id), console)
    assert "2 of these images were scored earlier with the same bundle" in console.file.getvalue()  # type: ignore[attr-defined]


def test_written_twice_it_is_one_prediction_the_later_one(database: Engine) -> None:
    made = add_job(database, 2)
    write(database, made, [scored(made.image_ids[0], 0.1), scored(made.image_ids[1], 0.2)])
    write(database, made, [scored(made.image_ids[0], 0.8, TriageFlag.HIGH_RISK)], engine="fake 2")
    assert read(database, lambda c: c.scalar(select(func.count()).select_from(Prediction))) == 2
    first, second = exported(database, made)
    assert (first.probability, first.flag, first.engine) == (0.8, TriageFlag.HIGH_RISK, "fake 2")
    assert (second.probability, second.flag, second.engine) == (0.2, TriageFlag.LOWER_PRIORITY, "fake 1")


def test_an_image_scored_after_all_loses_its_reason(database: Engine) -> None:
    made = add_job(database, 1)
    write(database, made, [Failed(image_id=made.image_ids[0], code=FailureCode.MISSING, sentence="gone")])
    write(database, made, [scored(made.image_ids[0])])
    (found,) = exported(database, made)
    assert (found.status, found.failure_code, found.reason) == (ImageStatus.SCORED, None, None)


def test_no_outcomes_is_nothing_to_write(database: Engine) -> None:
    made = add_job(database, 1)
    write(database, made, [])
    assert counts(database, made).completed == 0


def test_the_longest_reason_that_is_kept(database: Engine) -> None:
    made = add_job(database, 3)
    write(
        database,
        made,
        [
            Failed(image_id=made.image_ids[0], code=FailureCode.ENGINE_ERROR, sentence="ä" * (REASON_LENGTH + 1)),
            Failed(image_id=made.image_ids[1], code=FailureCode.ENGINE_ERROR, sentence="ä" * REASON_LENGTH),
            Ungradable(image_id=made.image_ids[2], reason=UngradableReason.BLURRED, sentence="x" * 10_000),
        ],
    )
    assert [len(found.reason or "") for found in exported(database, made)] == [500, 500, 500]


def test_an_export_is_in_the_order_of_submission_over_any_number_of_pages(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.worklist._PAGE", 3)
    made = add_job(database, 4, 3)
    add_job(database, 5)
    write(database, made, mixed(made)[::-1])
    rows = exported(database, made)
    assert [found.path for found in rows] == [f"0/{i}.jpg" for i in range(4)] + [f"1/{i}.jpg" for i in range(3)]
    assert [found.image_id for found in rows] == made.image_ids


def test_every_image_of_a_job_is_a_line_of_the_csv(database: Engine) -> None:
    made = add_job(database, 7)
    write(database, made, mixed(made))
    file = io.StringIO(newline="")
    assert read(database, lambda c: write_csv(outcomes_by_image(c, made.job_id), file)).images == 7
    file.seek(0)
    flags = [line["flag"] for line in csv.DictReader(file)]
    assert flags == ["high_risk", "ungradable", "borderline", "ungradable", "ungradable", "lower_priority", ""]


def test_worst_cases_first(database: Engine) -> None:
    made = add_job(database, 6)
    write(database, made, mixed(made))
    worst = read(database, lambda c: worklist_page(c, made.job_id, 2))
    assert [found.probability for found in worst] == [0.9, 0.45]
    everything = read(database, lambda c: worklist_page(c, made.job_id, 100))
    assert [found.status for found in everything] == [ImageStatus.SCORED] * 3


def test_of_equal_probabilities_the_last_submitted_comes_first(database: Engine) -> None:
    made = add_job(database, 4)
    write(database, made, [scored(image_id, 0.3) for image_id in made.image_ids[::-1]])
    worst = read(database, lambda c: worklist_page(c, made.job_id, 4))
    assert [found.image_id for found in worst] == made.image_ids[::-1]


def test_images_without_a_score_are_listed_for_a_human(database: Engine) -> None:
    made = add_job(database, 7)
    write(database, made, mixed(made))
    listed = read(database, lambda c: unscored_page(c, made.job_id, 10))
    assert {found.image_id for found in listed} == {made.image_ids[1], made.image_ids[3], made.image_ids[4]}
    assert all(found.reason for found in listed)


def test_a_refused_write_leaves_none_of_it(database: Engine) -> None:
    made = add_job(database, 2)

    def half(connection: Connection) -> None:
        write_outcomes(
            connection, [scored(made.image_ids[0])], job_id=made.job_id, bundle_id=made.bundle_id, engine="fake"
        )
        raise RuntimeError("the worker's lease was lost")

    with pytest.raises(RuntimeError):
        transact(database, half)
    assert counts(database, made).completed == 0
    assert row(database, Image, made.image_ids[0]).completed_at is None


def test_a_read_is_one_consistent_view(database: Engine) -> None:
    """The counts of a summary, and the pages of an export, must not tell of different moments."""
    made = add_job(database, 6)

    def twice(connection: Connection) -> tuple[JobCounts, JobCounts]:
        before = count_images(connection, made.job_id)
        write(database, made, mixed(made))
        return before, count_images(connection, made.job_id)

    before, after = read(database, twice)
    assert before == after

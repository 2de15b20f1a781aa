"""Cases: a lesion once, at the rank of its most suspicious image, and nothing without a score is lost."""

from dataclasses import replace

import pytest

from db.status import FailureCode, ImageStatus, TriageFlag, UngradableReason
from db.worklist import OutcomeRow
from tests.unit.worker.output.test_csv import NOT_SCORED, ROW
from worker.output.worklist_cases import make_worklist, why_not_scored


def scored(image_id: int, probability: float, lesion: str | None) -> OutcomeRow:
    return replace(ROW, image_id=image_id, path=f"{image_id}.jpg", probability=probability, lesion_id=lesion)


def lost(image_id: int, lesion: str | None, status: ImageStatus = ImageStatus.FAILED) -> OutcomeRow:
    return replace(NOT_SCORED, image_id=image_id, path=f"{image_id}.jpg", lesion_id=lesion, status=status)


def test_images_of_a_lesion_are_one_case_at_the_rank_of_the_most_suspicious() -> None:
    rows = [scored(1, 0.9, "A"), scored(2, 0.8, "B"), scored(3, 0.7, None), scored(4, 0.6, "A"), scored(5, 0.5, None)]
    worklist = make_worklist(rows, most=10, cancelled=False)
    assert [(case.rank, case.lesion, [row.image_id for row in case.images]) for case in worklist.cases] == [
        (1, "A", [1, 4]),
        (2, "B", [2]),
        (3, None, [3]),
        (4, None, [5]),
    ]
    assert (worklist.all_cases, worklist.flags[TriageFlag.HIGH_RISK], sum(worklist.histogram)) == (4, 4, 5)


def test_every_image_without_a_score_stands_first_and_with_its_lesion_too() -> None:
    rows = [lost(1, "A"), lost(2, None), lost(3, "C"), scored(4, 0.4, "A")]
    worklist = make_worklist(rows, most=10, cancelled=False)
    assert [row.image_id for row in worklist.cases[0].not_scored] == [1]
    assert ([row.image_id for row in worklist.not_scored], worklist.all_not_scored) == ([1, 2, 3], 3)
    assert worklist.ranks == {1: 1}


@pytest.mark.parametrize("cancelled", [False, True])
def test_waiting_images_are_counted_or_without_a_score_for_good(cancelled: bool) -> None:
    worklist = make_worklist([lost(1, None, ImageStatus.WAITING)], most=10, cancelled=cancelled)
    assert (worklist.waiting, worklist.all_not_scored) == ((0, 1) if cancelled else (1, 0))


def test_of_many_the_first_are_kept_and_all_counted() -> None:
    rows = [*(lost(number, None) for number in range(9)), *(scored(10 + n, 0.9 - n / 100, f"L{n}") for n in range(9))]
    rows.append(scored(99, 0.1, "L8"))
    worklist = make_worklist(rows, most=3, cancelled=False)
    assert (len(worklist.cases), worklist.all_cases) == (3, 9)
    assert (len(worklist.not_scored), worklist.all_not_scored) == (3, 9)


@pytest.mark.parametrize("reason", list(UngradableReason))
def test_a_doctor_reads_why(reason: UngradableReason) -> None:
    row = replace(lost(1, None, ImageStatus.UNGRADABLE), ungradable_reason=reason, reason="distance 9.17")
    assert "distance" not in why_not_scored(row)
    failed = replace(lost(1, None), failure_code=FailureCode.TRUNCATED, reason="the JPEG is cut short")
    assert why_not_scored(failed) == "The JPEG is cut short."

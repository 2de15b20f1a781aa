"""Pseudonyms: the same patient has the same one, another key gives another one, and nothing else changes."""

from dataclasses import replace

from db.submission import NewImage
from worker.intake.pseudonyms import pseudonymised

IMAGE = NewImage(
    path="a.jpg", size_bytes=1, mtime_ns=2, patient_ref="Miller", age=40.0, lesion_id="L1", study_uid="1.2"
)
KEY = "a key of more than sixteen characters"


def test_references_become_keyed_hashes() -> None:
    first, again, other, none = pseudonymised(
        [IMAGE, IMAGE, replace(IMAGE, patient_ref="Meier"), replace(IMAGE, patient_ref=None)], KEY
    )
    assert first == again
    assert (first.age, first.lesion_id, first.study_uid) == (40.0, "L1", None)
    assert len({first.patient_ref, other.patient_ref, "Miller", "Meier"}) == 4
    assert none.patient_ref is None
    (with_other_key,) = pseudonymised([IMAGE], KEY[::-1])
    assert with_other_key.patient_ref != first.patient_ref

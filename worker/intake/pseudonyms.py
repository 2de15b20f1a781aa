"""Patient references replaced by a keyed hash: equal for one patient, and without the key nobody gets back."""

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import replace

from db.submission import NewImage

#: Hexadecimal digits of a pseudonym: 128 bits.
_DIGITS = 32


def pseudonymised(images: Iterable[NewImage], key: str) -> Iterator[NewImage]:
    """Replace each patient reference by HMAC-SHA256 (RFC 2104), and leave out DICOM's identifiers, which name patients.

    Args:
        images: of a submission.
        key: secret of the hospital. With another key, a patient has another pseudonym.
    """
    for image in images:
        reference = image.patient_ref
        if reference is not None:
            reference = hmac.new(key.encode(), reference.encode(), hashlib.sha256).hexdigest()[:_DIGITS]
        yield replace(image, patient_ref=reference, study_uid=None, series_uid=None, instance_uid=None)

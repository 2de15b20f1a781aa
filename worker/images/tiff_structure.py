"""The structure of a TIFF, checked against the file before a reader sees it: declared lengths and pages."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from db.status import FailureCode
from worker.errors import ImageFaultError

#: TIFF's tag for the kind of a page, and its bits: a reduced copy of another page, a transparency mask.
_PAGE_KIND = 254
_SMALLER_COPY, _MASK = 1, 4
#: Bytes of a value of each type (TIFF 6.0, section 2; BigTIFF).
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
#: Entries and pages that a file may have.
_MAX_ENTRIES, _MAX_PAGES = 4_096, 1_000


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Byte order and sizes of a TIFF or a BigTIFF."""

    order: str
    count_kind: str
    offset_kind: str
    entry_bytes: int

    @property
    def value_at(self) -> int:
        """Where an entry's value begins."""
        return self.entry_bytes - struct.calcsize("=" + self.offset_kind)


def refuse_broken_structure(data: bytes) -> None:
    """Check that a TIFF holds one picture, and that no declared length leads out of the file.

    Raises:
        ImageFaultError: ``unsupported_format`` for several pages, ``truncated`` for a length or an offset that leads
            out of the file. A reduced copy, such as a preview, does not count as a page.
    """
    try:
        for number, kind in enumerate(_pages(data)):
            if number == 0 and kind & _SMALLER_COPY:
                raise _several("a TIFF that begins with a reduced copy of its picture, as camera raw files do")
            if number > 0 and not kind & (_SMALLER_COPY | _MASK):
                raise _several("a TIFF of several pages")
    except (struct.error, OverflowError):
        raise _damaged("its list of pages points outside the file") from None


def _several(what: str) -> ImageFaultError:
    return ImageFaultError(
        FailureCode.UNSUPPORTED_FORMAT,
        f"{what}: only its first picture would be scored. Save each picture as its own file",
    )


def _damaged(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.TRUNCATED, f"the TIFF is cut short or damaged: {what}")


def _pages(data: bytes) -> Iterator[int]:
    """The kind of each page of the main list, 0 for a full picture."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    form = (
        _Form(order=order, count_kind="Q", offset_kind="Q", entry_bytes=20)
        if big
        else _Form(order=order, count_kind="H", offset_kind="I", entry_bytes=12)
    )
    (place,) = struct.unpack_from(order + form.offset_kind, data, 8 if big else 4)
    seen: set[int] = set()
    while place and place not in seen:
        seen.add(place)
        if len(seen) > _MAX_PAGES:
            raise _damaged(f"it has more than {_MAX_PAGES:,} pages")
        (count,) = struct.unpack_from(order + form.count_kind, data, place)
        if count > _MAX_ENTRIES:
            raise _damaged("a page declares more entries than any has")
        first = place + struct.calcsize("=" + form.count_kind)
        after = first + form.entry_bytes * count
        (place,) = struct.unpack_from(order + form.offset_kind, data, after)
        kind = 0
        for entry in range(first, after, form.entry_bytes):
            kind = _check_entry(data, entry, form, kind)
        yield kind


def _check_entry(data: bytes, entry: int, form: _Form, kind: int) -> int:
    """Check one entry. Returns the page's kind, if this is its entry, or ``kind``."""
    tag, value_type = struct.unpack_from(form.order + "HH", data, entry)
    (count,) = struct.unpack_from(form.order + form.offset_kind, data, entry + 4)
    size = _TYPE_BYTES.get(value_type, 1) * count
    value_at = entry + form.value_at
    if size > struct.calcsize("=" + form.offset_kind):
        (value_at,) = struct.unpack_from(form.order + form.offset_kind, data, value_at)
        if value_at + size > len(data):
            raise _damaged("an entry declares more bytes than the file has")
    if tag != _PAGE_KIND or not count:
        return kind
    # A 16-bit value is in the first half of its field, whatever the byte order.
    return int(struct.unpack_from(form.order + ("H" if value_type == 3 else "I"), data, value_at)[0])

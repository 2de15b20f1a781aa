"""Files with several pictures: a decoder would return the first and ignore the others."""

import struct
from collections.abc import Iterator

from db.status import FailureCode
from worker.errors import ImageFaultError

#: TIFF's tag for the kind of a page, and its bits: a reduced copy of another page, a transparency mask.
_PAGE_KIND = 254
_SMALLER_COPY, _MASK = 1, 4
#: Bit of an extended WebP's features.
_ANIMATED_WEBP = 0x02


def refuse_several(name: str, data: bytes) -> None:
    """Check that a file holds one picture. A reduced copy, such as a preview, does not count.

    Args:
        name: the format, as `worker.images.decode.sniff_format` returns it.
        data: a file that decodes.

    Raises:
        ImageFaultError: ``unsupported_format`` for several pages or frames, ``truncated`` for a TIFF whose list of
            pages points outside the file.
    """
    if name == "tiff":
        _refuse_pages(data)
    elif name == "webp" and data[12:16] == b"VP8X" and data[20] & _ANIMATED_WEBP:
        raise _several("an animated WebP")
    elif name == "png" and b"acTL" in _png_chunks(data):
        raise _several("an animated PNG")


def _several(what: str) -> ImageFaultError:
    return ImageFaultError(
        FailureCode.UNSUPPORTED_FORMAT,
        f"{what}: only its first picture would be scored. Save each picture as its own file",
    )


def _refuse_pages(data: bytes) -> None:
    try:
        for number, kind in enumerate(_tiff_pages(data)):
            if number == 0 and kind & _SMALLER_COPY:
                raise _several("a TIFF that begins with a reduced copy of its picture")
            if number > 0 and not kind & (_SMALLER_COPY | _MASK):
                raise _several("a TIFF of several pages")
    except (struct.error, OverflowError):
        raise ImageFaultError(
            FailureCode.TRUNCATED, "the TIFF's list of pages points outside the file: it is cut short or damaged"
        ) from None


def _tiff_pages(data: bytes) -> Iterator[int]:
    """The kind of each page of the main list, 0 for a full picture.

    TIFF 6.0, section 2; BigTIFF has longer counts and offsets.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count_kind, offset_kind, entry_bytes = ("Q", "Q", 20) if big else ("H", "I", 12)
    (place,) = struct.unpack_from(order + offset_kind, data, 8 if big else 4)
    seen: set[int] = set()
    while place and place not in seen:
        seen.add(place)
        (count,) = struct.unpack_from(order + count_kind, data, place)
        first = place + struct.calcsize(count_kind if big else "H")
        after = first + entry_bytes * count
        (place,) = struct.unpack_from(order + offset_kind, data, after)
        yield _kind(data, order, range(first, after, entry_bytes), big=big)


def _kind(data: bytes, order: str, entries: range, *, big: bool) -> int:
    for entry in entries:
        tag, form = struct.unpack_from(order + "HH", data, entry)
        if tag == _PAGE_KIND:
            # A 16-bit value is in the first half of its field, whatever the byte order.
            value: int = struct.unpack_from(order + ("H" if form == 3 else "I"), data, entry + (12 if big else 8))[0]
            return value
    return 0


def _png_chunks(data: bytes) -> set[bytes]:
    """The kinds of chunks before the pixels. An animation must declare itself there."""
    kinds, place = set[bytes](), 8
    while (kind := data[place + 4 : place + 8]) and kind != b"IDAT":
        kinds.add(kind)
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return kinds

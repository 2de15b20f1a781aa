"""Files that hold several pictures, of which a decoder gives the first and says nothing of the others."""

import struct
from collections.abc import Iterator

from db.status import FailureCode
from worker.errors import ImageFaultError

#: TIFF's tag by which a page says what it is to the others, and its bits: a smaller copy, a mask of transparency.
_PAGE_KIND = 254
_SMALLER_COPY, _MASK = 1, 4
#: Bits of the features of an extended WebP.
_ANIMATED_WEBP = 0x02


def refuse_several(name: str, data: bytes) -> None:
    """Pass if a file holds one picture; a smaller copy of it, as a preview, is none of its own.

    Args:
        name: of its format, as `worker.images.decode.sniff_format` gives it.
        data: a file that decodes.

    Raises:
        ImageFaultError: ``unsupported_format`` for several pages or frames, ``truncated`` for a TIFF whose list of
            pages leads out of the file.
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
        f"{what}: only its first picture would be judged. Save each picture as a file of its own",
    )


def _refuse_pages(data: bytes) -> None:
    try:
        for number, kind in enumerate(_tiff_pages(data)):
            if number == 0 and kind & _SMALLER_COPY:
                raise _several("a TIFF that begins with a smaller copy of its picture")
            if number > 0 and not kind & (_SMALLER_COPY | _MASK):
                raise _several("a TIFF of several pages")
    except (struct.error, OverflowError):
        raise ImageFaultError(
            FailureCode.TRUNCATED, "the TIFF's list of pages leads out of the file: it was cut, or is damaged"
        ) from None


def _tiff_pages(data: bytes) -> Iterator[int]:
    """What each page of the main list says that it is, 0 for a picture of its own.

    TIFF 6.0, section 2, and BigTIFF, whose counts and offsets are longer.
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
            # A 16-bit number stands in the first half of its field, whatever the order of bytes.
            value: int = struct.unpack_from(order + ("H" if form == 3 else "I"), data, entry + (12 if big else 8))[0]
            return value
    return 0


def _png_chunks(data: bytes) -> set[bytes]:
    """The kinds of chunks before the pixels, where an animation must say that it is one."""
    kinds, place = set[bytes](), 8
    while (kind := data[place + 4 : place + 8]) and kind != b"IDAT":
        kinds.add(kind)
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return kinds

"""Holes: sectors of zeros that a disk or a copy left in a file. A decoder goes on behind one with wrong pixels.

Compressed pixels of one tone may be zeros, too, such as the black rim of a dermatoscope. They begin and end anywhere; a
hole begins and ends with a sector, so a run of zeros is a hole only where both of its ends do.
"""

_SECTOR = 512
_ZEROS = bytes(_SECTOR)
#: Bytes beside a hole that may be zeros by chance.
_CHANCE = 3


def has_hole(data: bytes, start: int = 0, end: int | None = None) -> bool:
    """Whether compressed pixels have a hole.

    Args:
        data: a whole file, from its first byte.
        start: where its compressed pixels begin.
        end: where they end. None: with the file.
    """
    end = len(data) if end is None or end < 0 else end
    first = -(-start // _SECTOR)
    # One byte of each sector tells nearly always that it is none.
    marks = data[first * _SECTOR + _SECTOR // 2 : end : _SECTOR]
    at = marks.find(0)
    while at >= 0:
        begin = behind = (first + at) * _SECTOR
        while data.startswith(_ZEROS, behind, end):
            behind += _SECTOR
        if behind > begin:
            before, after = data[max(start, begin - _SECTOR) : begin], data[behind : min(end, behind + _SECTOR)]
            # Zeros up to the end are padding.
            if after.strip(b"\0") and max(_zeros(before[::-1]), _zeros(after)) <= _CHANCE:
                return True
        at = marks.find(0, max(at + 1, behind // _SECTOR - first))
    return False


def _zeros(data: bytes) -> int:
    """Zeros at the beginning."""
    return len(data) - len(data.lstrip(b"\0"))
